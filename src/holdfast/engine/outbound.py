"""The requests that a node makes to addresses which others have named: applications, `step.fetch`, language models.

Somebody who may name an address must not reach through this server what only the server reaches. So a name is resolved
here, all that it resolves to is looked at, and the connection is made to what was looked at: no second look-up
lies between. Each redirect is a new request.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from holdfast.base.addresses import Address, Network, Reach, literal, reach_of, same_addresses
from holdfast.base.errors import AddressRefusedError, ConfigurationError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
SETTING = "HOLDFAST_ALLOW_PRIVATE_NETWORKS"
CONNECT_SECONDS = 10.0
_KEPT_ELSEWHERE = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
"""Headers that go along when a redirect leads to another origin. Any other may be a credential."""
_ANY = frozenset({"all", "true", "1", "yes"})
_NONE = frozenset({"", "false", "0", "no", "none"})


@dataclass(frozen=True, slots=True)
class PrivateNetworks:
    """What of private networks may be called. Metadata services and link-local addresses never may."""

    everything: bool = False
    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    """Host names, with `*` for any part, each with or without a port: `app`, `*.internal`, `app:3000`."""

    @classmethod
    def parse(cls, text: str) -> PrivateNetworks:
        """A permission as people write it: `all`, or networks, addresses and host names separated by commas.

        Raises:
            ConfigurationError: an item is none of these.
        """
        word = text.strip().lower()
        if word in _ANY or word in _NONE:
            return cls(everything=word in _ANY)
        networks: list[Network] = []
        names: list[str] = []
        for item in (part.strip().lower() for part in text.split(",") if part.strip()):
            try:
                networks.append(ip_network(item.strip("[]")))
            except ValueError as error:
                if "/" in item or not item.strip("*.:-"):
                    raise ConfigurationError(
                        f"{SETTING}: {item!r} is no network, address or host name ({error}); write it as 10.0.0.0/8, "
                        "*.internal or app:3000, or `all`"
                    ) from None
                names.append(item)
        return cls(networks=tuple(networks), names=tuple(names))

    def naming(self, *urls: str) -> PrivateNetworks:
        """This permission, and the hosts and ports of addresses that the operator has named."""
        named = tuple(f"{url.raw_host}:{url.port}" for url in map(URL, urls) if url.raw_host)
        return PrivateNetworks(self.everything, self.networks, (*self.names, *named))

    def allow(self, host: str, port: int, address: Address) -> bool:
        """Whether a private address may be called that a host stands for."""
        if self.everything or any(fnmatchcase(name, item) for item in self.names for name in (host, f"{host}:{port}")):
            return True
        return any(
            one.version == network.version and one in network
            for one in same_addresses(address)
            for network in self.networks
        )


EVERYTHING = PrivateNetworks(everything=True)
"""In development: applications are on this machine."""


def check_url(text: str, private: PrivateNetworks) -> URL:
    """The address of a request, as far as can be said without resolving its name.

    Raises:
        AddressRefusedError: it is not one of HTTP, has a login in it, or is an address that may not be called.
    """
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise AddressRefusedError(f"{text[:200]!r} is no address ({error})", "correct it") from None
    if url.scheme not in {"http", "https"} or not url.raw_host or port is None:
        raise AddressRefusedError(
            f"{_shown(url)} is not called: it is no address of HTTP", "begin it with http:// or https:// and a host"
        )
    if url.raw_user is not None or url.raw_password is not None:
        raise AddressRefusedError(
            f"{_shown(url)} is not called: it has a login in it, which would end up in logs", "send it as a header"
        )
    try:
        address = literal(url.raw_host)
    except ValueError as error:
        raise AddressRefusedError(f"{_shown(url)} is not called: {url.raw_host!r} hides an address", f"{error}") from None
    if address is not None:
        check_address(_shown(url), url.raw_host, port, address, private)
    return url


def check_address(what: str, host: str, port: int, address: Address, private: PrivateNetworks) -> None:
    """Refuse what may not be called.

    Args:
        what: What was to be called, for the message.
        host: The name or address in the URL.
        port: The port in it.
        address: What the host stands for.
        private: What of private networks may be called.

    Raises:
        AddressRefusedError: it names the address, the rule and the remedy.
    """
    reach, kind = reach_of(address)
    stands = "" if literal(host) is not None else f" resolves to {address}, which"
    if reach is Reach.NEVER:
        raise AddressRefusedError(
            f"{what} is not called: {host}{stands} is {kind}; such addresses never are",
            "give one that the application itself answers at",
        )
    if reach is Reach.PRIVATE and not private.allow(host.lower(), port, address):
        raise AddressRefusedError(
            f"{what} is not called: {host}{stands} is {kind}, and this server has no permission to call those",
            f"if it is yours, allow it with {SETTING}={host} or --allow-private-networks {host}",
        )


def _shown(url: URL) -> str:
    """The address without what may be secret in it."""
    return str(url.with_user(None).with_query(None).with_fragment(None) if url.absolute else url)[:300]


class CheckedResolver(AbstractResolver):
    """Resolves names, and gives out nothing that may not be called.

    Args:
        private: Says what of private networks may be called.
        inner: Does the look-up; the system's unless given.
    """

    def __init__(self, private: Callable[[], PrivateNetworks], inner: AbstractResolver | None = None) -> None:
        self._private = private
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name.

        Raises:
            AddressRefusedError: one of them may not be called.
        """
        found = await self._inner.resolve(host, port, family)
        for one in found:
            address = ip_address(one["host"].partition("%")[0])
            check_address(f"{host}:{port}", host, port, address, self._private())
        return found

    async def close(self) -> None:
        """Free what the look-up holds."""
        await self._inner.close()


class Outbound:
    """Makes requests to addresses that others have named.

    Args:
        private: What of private networks may be called.
        resolver: Looks names up; the system's unless given.
    """

    def __init__(self, private: PrivateNetworks = EVERYTHING, resolver: AbstractResolver | None = None) -> None:
        self.private = private
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    def check(self, url: str) -> None:
        """See `check_url`."""
        check_url(url, self.private)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        data: bytes | str | None,
        headers: Mapping[str, str],
        seconds: float,
        redirects: int,
        following: frozenset[int] = REDIRECTS,
        same_request: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request with its redirects; the last answer, to be read while the block lasts.

        Args:
            method: The method.
            url: Where it goes.
            data: Its body.
            headers: Its headers.
            seconds: How long all of it may take.
            redirects: How many are followed. Of the last answer, the caller sees that it is one more.
            following: Statuses that are followed.
            same_request: Whether a redirect gets the same request, as the calls of the protocol do. Otherwise it is treated
                as browsers do, and to another origin only those headers go along that say what the body is.

        Raises:
            AddressRefusedError: it, or a redirect, leads where no call may go.
            aiohttp.ClientError, TimeoutError, OSError: there was no answer.
        """
        async with asyncio.timeout(seconds):
            for left in range(redirects, -1, -1):
                target = check_url(url, self.private)
                async with self._http().request(
                    method, target, data=data, headers=headers, allow_redirects=False
                ) as response:
                    if not left or response.status not in following or "location" not in response.headers:
                        yield response
                        return
                    url = urljoin(str(target), response.headers["location"])
                    if same_request:
                        continue
                    if _becomes_get(response.status, method):
                        method, data = "GET", None
                    if _origin(url) != target.origin():
                        headers = {name: value for name, value in headers.items() if name.lower() in _KEPT_ELSEWHERE}

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=30, resolver=CheckedResolver(lambda: self.private, self._resolver)
                ),
                # what one application sets is not another's to send
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _becomes_get(status: int, method: str) -> bool:
    return (status == 303 and method != "HEAD") or (status in {301, 302} and method == "POST")


def _origin(url: str) -> URL | None:
    try:
        return URL(url).origin()
    except ValueError:
        return None
