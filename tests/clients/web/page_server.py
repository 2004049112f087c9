"""Serves one page from an origin of its own, as an application's web server would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.clients.web.programs import bundle
from tests.stack import free_port

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Flags</title><link rel="icon" href="data:,"></head>
<body><h1>Flags</h1><p>Provider: <b id="status"></b></p><p>Last event: <span id="heard"></span></p>
<script src="/app.js"></script></body>
</html>
"""


@asynccontextmanager
async def page_server() -> AsyncIterator[str]:
    """Serve the page and its script for a while, under the origin that is returned."""
    script = await bundle("page.mjs")

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def app(_request: web.Request) -> web.Response:
        return web.Response(body=script, content_type="text/javascript", charset="utf-8")

    application = web.Application()
    application.add_routes([web.get("/", page), web.get("/app.js", app)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
