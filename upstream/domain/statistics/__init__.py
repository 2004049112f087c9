"""Statistics of experiments, pure: samples, three ways to compare them, what may block a result, and the verdict.

`results` is the way in: it takes the samples of every variant for every metric and returns what people read. The
other modules own one method each and name its source. No I/O, no clock, no randomness: the same samples give the same
figures. Only `distributions` touches scipy, and only when it is first asked, so that nothing is paid at start.
"""
