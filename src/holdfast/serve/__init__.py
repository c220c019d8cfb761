"""An app's functions over HTTP: the serve route for Starlette, FastAPI, Flask and Django.

`holdfast.serve.starlette`, `.fastapi`, `.flask` and `.django` each have a `serve` for their framework.
"""
