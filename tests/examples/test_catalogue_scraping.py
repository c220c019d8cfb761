"""B4 and B8 below the durable function: what is read from real HTTP answers, and which of them may be tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from examples.catalogue.platforms import Platform, UnsupportedAddressError, check_address, parse_platforms
from examples.catalogue.scraping import Fetcher, NoProductError, PageError, ShopUnavailableError, extract
from examples.catalogue.scraping.fetching import Page, decode
from examples.catalogue.scraping.product import read_currency, read_price
from examples.demo.serving import served
from examples.demo.shop_site import ARABIC_TEXT, ARABIC_TITLE, ShopSite, json_ld, page
from holdfast import NonRetriableError, RetryAfterError

pytestmark = pytest.mark.anyio


class Shop:
    def __init__(self, site: ShopSite, url: str, client: httpx.AsyncClient) -> None:
        self.site = site
        self.url = url
        self.fetcher = Fetcher(client, [Platform("Local", url.removeprefix("http://"))], timeout=5, max_bytes=200_000)

    async def read(self, path: str):
        return extract(await self.fetcher.fetch(self.url + path))


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    site = ShopSite(slow_seconds=0.3)
    async with served(site.app()) as url, httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        yield Shop(site, url, client)


async def test_b4_json_ld_is_enough_by_itself(shop):
    scraped = await shop.read("/oud")
    found = scraped.found
    assert (found.title, found.price, found.currency) == ("Royal Oud, 12 ml", "349.00", "SAR")
    assert found.description == "Aged oud oil from Assam. Warm, deep, and long lasting."
    assert found.images == [f"{shop.url}/images/oud.svg"]
    assert (scraped.provider, scraped.providers_tried, scraped.partial) == ("structured-data", ["structured-data"], False)


async def test_b4_open_graph_fills_what_json_ld_lacks(shop):
    found = (await shop.read("/lamp")).found
    assert (found.title, found.price, found.description) == ("Brass lamp", "1299", "A lamp of brass, made by hand.")


async def test_b4_open_graph_alone(shop):
    scraped = await shop.read("/vase")
    assert (scraped.found.title, scraped.found.price, scraped.found.currency) == ("Blue vase", "89.50", "SAR")
    assert scraped.provider == "structured-data"


async def test_b4_the_markup_comes_second(shop):
    scraped = await shop.read("/rug")
    assert (scraped.found.title, scraped.found.price, scraped.found.currency) == ("Red rug", "1450.00", "SAR")
    assert scraped.found.images == [f"{shop.url}/images/rug.svg"]
    assert (scraped.provider, scraped.providers_tried) == ("markup", ["structured-data", "markup"])


async def test_b5_images_without_text_are_partial(shop):
    scraped = await shop.read("/photo")
    assert scraped.partial
    assert (scraped.found.title, scraped.found.description, scraped.found.price) == (None, None, "120")


async def test_b8_a_page_without_a_product(shop):
    with pytest.raises(NoProductError, match="shows no product; asked were structured-data and markup"):
        await shop.read("/about")


async def test_b8_a_slow_page_within_the_limit_and_past_it(shop):
    assert (await shop.read("/slow")).found.title == "Royal Oud, 12 ml"
    shop.site.slow_seconds = 30
    hurried = Fetcher(shop.fetcher.client, shop.fetcher.platforms, timeout=0.2, max_bytes=1000)
    with pytest.raises(ShopUnavailableError, match=r"did not answer within 0\.2 s"):
        await hurried.fetch(f"{shop.url}/slow")


async def test_b8_429_says_when_to_come_back(shop):
    shop.site.retry_after = 7
    with pytest.raises(RetryAfterError, match="answered 429 and asks to wait 7 s"):
        await shop.read("/busy")
    shop.site.failures["/busy"] = 1
    shop.site.retry_after = 3600
    with pytest.raises(PageError, match="asks to wait 3600 s; try again then"):
        await shop.read("/busy")


async def test_b8_errors_that_may_pass_and_errors_that_stay(shop):
    with pytest.raises(ShopUnavailableError, match="the shop answered 500") as passing:
        await shop.read("/shaky")
    assert not isinstance(passing.value, NonRetriableError)
    with pytest.raises(PageError, match="does not exist"):
        await shop.read("/nowhere")
    with pytest.raises(PageError, match="not a web page but application/pdf"):
        await shop.read("/brochure")
    with pytest.raises(ShopUnavailableError, match="connection to the shop failed"):
        await shop.read("/dropped")


async def test_b8_a_shop_that_is_down():
    async with httpx.AsyncClient(trust_env=False) as client:
        fetcher = Fetcher(client, [Platform("Local", "127.0.0.1")], timeout=5, max_bytes=1000)
        with pytest.raises(ShopUnavailableError, match="connection to the shop failed"):
            await fetcher.fetch("http://127.0.0.1:9/oud")


async def test_b8_huge_pages_are_read_as_far_as_the_limit(shop):
    scraped = await shop.read("/huge")
    assert (scraped.found.title, scraped.truncated) == ("Royal Oud, 12 ml", True)
    fetched = await shop.fetcher.fetch(f"{shop.url}/huge")
    assert len(fetched.html) == 200_000
    with pytest.raises(NoProductError, match="no product in the part of it that was read"):
        await shop.read("/huge-empty")


async def test_b8_redirects_are_followed_within_the_platform(shop):
    fetched = await shop.fetcher.fetch(f"{shop.url}/moved")
    assert fetched.url == f"{shop.url}/oud?from=moved"
    with pytest.raises(PageError, match="redirects more than 5 times"):
        await shop.read("/circle")
    with pytest.raises(PageError, match=r"redirects to somewhere else: Products from 169\.254\.169\.254 can't be imported"):
        await shop.read("/away")


@pytest.mark.parametrize("path", ["/arabic", "/latin"])
async def test_b8_a_wrong_charset_is_seen_through(shop, path):
    found = (await shop.read(path)).found
    assert (found.title, found.description) == (ARABIC_TITLE, ARABIC_TEXT)


def test_a_page_cut_off_inside_a_character():
    assert decode("قهوة".encode()[:-1], "utf-8", truncated=True) == "قهو"
    assert decode("café".encode("latin-1"), "iso-8859-1") == "café"
    assert decode(b"caf\xe9", "no-such-encoding") == "café"
    assert decode("a".encode("utf-16"), None) == "a"


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("349.00", "349.00"), ("1,299.00 SAR", "1299.00"), ("1.299,00 €", "1299.00"), ("1 299,50", "1299.50"), ("1,299", "1299"),
        ("٣٤٩٫٥٠ ر.س", "349.50"), ("1.234.567", "1234567"), ("0.125", "0.125"), ("12,5", "12.5"), (1299, "1299"), ("free", None), (None, None),
        ("from 20 to 30", "20"),
    ],
)  # fmt: skip
def test_prices_as_shops_write_them(text, price):
    assert read_price(text) == price


def test_currencies():
    assert [read_currency(text) for text in ("SAR", "349 ر.س", "€ 5", "5", None)] == ["SAR", "SAR", "EUR", None, None]


@pytest.mark.parametrize(
    "block",
    [
        '{"@graph": [{"@type": "WebPage"}, {"@type": ["Thing", "Product"], "name": "Cup"}]}',
        '[{"@type": "BreadcrumbList"}, {"@type": "Product", "name": "Cup"}]',
        '{"@type": "ItemPage", "mainEntity": {"@type": "Product", "name": "Cup", "offers": [null, {"price": {}}], "image": [[1], null]}}',
        '<!-- {"@type": "Product", "name": "Cup"} -->',
    ],
)
def test_json_ld_in_its_many_shapes(block):
    html = page(f'<script type="application/ld+json">{block}</script>')
    assert extract(Page("https://x.salla.sa/cup", html, truncated=False)).found.title == "Cup"


def test_json_ld_made_to_hurt():
    nested = "[" * 5000 + "]" * 5000
    html = page(f'<script type="application/ld+json">{nested}</script>' + json_ld(name="Cup", image="javascript:alert(1)"))
    found = extract(Page("https://x.salla.sa/cup", html, truncated=False)).found
    assert (found.title, found.images) == ("Cup", [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Enter the address"), ("royal oud", "not a web address"), ("ftp://x.salla.sa/a", "not a web address"),
        ("https://", "not a web address"), ("https://[bad/a", "not a web address"), ("https://x.salla.sa/a b", "not a web address"),
        ("https://user:pw@x.salla.sa/a", "Leave out the user name"), ("https://example.com/a", "from example.com can't be imported"),
        ("https://evilsalla.sa/a", "from evilsalla.sa can't"), ("https://salla.sa.evil.com/a", "from salla.sa.evil.com can't"),
        ("https://x.salla.sa/" + "a" * 2000, "longer than 2000"),
    ],
)  # fmt: skip
def test_b3_addresses_that_are_refused(text, problem):
    platforms, _ = parse_platforms("")
    with pytest.raises(UnsupportedAddressError, match=problem):
        check_address(text, platforms)


def test_b3_addresses_that_are_taken():
    platforms, problems = parse_platforms("Salla=salla.sa, Local=127.0.0.1:8100")
    assert problems == []
    for text in (" https://X.Salla.sa/a ", "https://salla.sa/a", "http://127.0.0.1:8100/oud"):
        assert check_address(text, platforms) == text.strip()
    with pytest.raises(UnsupportedAddressError, match=r"Salla \(salla\.sa\) and Local \(127\.0\.0\.1:8100\)"):
        check_address("http://127.0.0.1:22/oud", platforms)
