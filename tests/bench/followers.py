"""Followers that only speak the protocol: change streams that are read as fast as they come and not looked into.

Run as a program of its own, `python -m tests.bench.followers PORT KEY COUNT`, so that they take no time from whoever
measures. Prints `open` once every stream has begun, and goes on until its input is closed.
"""

import asyncio
import sys

_READ_BYTES = 1 << 16


async def follow(port: int, key: str, begun: asyncio.Semaphore) -> None:
    """Open one stream and throw away what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /api/v2/stream HTTP/1.1\r\nHost: upstream\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(request.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.decode("latin-1"))
    begun.release()
    while await reader.read(_READ_BYTES):
        pass
    raise ConnectionError("the upstream closed a follower's stream")


async def main(port: int, key: str, count: int) -> None:
    """Hold so many streams until the input is closed."""
    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(port, key, begun)) for _ in range(count)]
        for _ in range(count):
            await begun.acquire()
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
