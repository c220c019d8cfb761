"""Every kind of connection an application may have, behind one face: a transaction in which it writes and sends."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import django_once  # noqa: F401 - configures Django
import psycopg
from django.db import connections, transaction
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

SQLITE = ["sqlite3", "aiosqlite", "session", "async_session", "connection", "async_connection", "django"]
POSTGRES = ["psycopg", "psycopg_async", "session", "async_session", "connection", "async_connection", "django"]
ASYNC = {"aiosqlite", "async_session", "async_connection", "psycopg_async"}


class Rollback(Exception):
    """Ends a transaction without a commit."""


def path_of(url: str) -> str:
    return url.removeprefix("sqlite:///")


def sqlalchemy_url(url: str, *, asynchronous: bool) -> str:
    if url.startswith("sqlite"):
        return url.replace("sqlite:", "sqlite+aiosqlite:" if asynchronous else "sqlite:")
    return url.replace("postgresql:", "postgresql+psycopg:")


def django_alias(url: str) -> str:
    """A Django database that is this one."""
    alias = f"at {url}"
    if alias not in connections.settings:
        if url.startswith("sqlite"):
            entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": path_of(url)}
        else:
            info = psycopg.conninfo.conninfo_to_dict(url)
            entry = {
                "ENGINE": "django.db.backends.postgresql", "NAME": info["dbname"], "USER": info["user"],
                "HOST": info["host"], "PASSWORD": info.get("password", ""), "PORT": info.get("port", ""),
            }
        connections.settings[alias] = {**connections.settings["default"], **entry}
    return alias


@asynccontextmanager
async def transaction_of(kind: str, url: str) -> AsyncIterator[Any]:
    """A transaction: it commits at the end of the block, and rolls back when the block raises. Gives what `connection=` takes."""
    if kind == "sqlite3":
        conn = sqlite3.connect(path_of(url))
        try:
            with conn:
                yield conn
        finally:
            conn.close()
    elif kind == "aiosqlite":
        async with aiosqlite.connect(path_of(url)) as conn:
            yield conn
            await conn.commit()
    elif kind == "psycopg":
        with psycopg.connect(url) as conn:
            yield conn
    elif kind == "psycopg_async":
        async with await psycopg.AsyncConnection.connect(url) as conn:
            yield conn
    elif kind == "django":
        alias = django_alias(url)
        try:
            with transaction.atomic(using=alias):
                yield connections[alias]
        finally:
            connections[alias].close()
    elif kind in ASYNC:
        engine = create_async_engine(sqlalchemy_url(url, asynchronous=True))
        begin = async_sessionmaker(engine).begin if kind == "async_session" else engine.begin
        try:
            async with begin() as conn:
                yield conn
        finally:
            await engine.dispose()
    else:
        engine = create_engine(sqlalchemy_url(url, asynchronous=False))
        begin = sessionmaker(engine).begin if kind == "session" else engine.begin
        try:
            with begin() as conn:
                yield conn
        finally:
            engine.dispose()


async def write(kind: str, connection: Any, name: str) -> None:
    """Write a row of the application's own in the transaction."""
    statement = f"INSERT INTO orders (name) VALUES ('{name}')"
    if kind == "django":
        with connection.cursor() as cursor:
            cursor.execute(statement)
        return
    done = connection.execute(text(statement) if "session" in kind or "connection" in kind else statement)
    if inspect.isawaitable(done):
        await done


def make_orders(url: str) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(path_of(url)) as conn:
            conn.execute("CREATE TABLE orders (name TEXT PRIMARY KEY)")
        conn.close()
    else:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (name text PRIMARY KEY)")


def rows(url: str, query: str = "SELECT name FROM orders ORDER BY name") -> list[Any]:
    """What is committed, seen from outside."""
    if url.startswith("sqlite"):
        conn = sqlite3.connect(path_of(url))
        try:
            return conn.execute(query).fetchall()
        finally:
            conn.close()
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query).fetchall()
