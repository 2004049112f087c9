"""More processes behind one port: worker 0 is the relay, the others serve and leave everything else to it."""
