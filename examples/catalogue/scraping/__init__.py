"""Getting a product from a shop's page: fetch it, then ask one provider after another what it says."""

from .fetching import Fetcher, PageError, ShopUnavailableError
from .orchestrator import NoProductError, extract
from .product import Found, Scraped

__all__ = ["Fetcher", "Found", "NoProductError", "PageError", "Scraped", "ShopUnavailableError", "extract"]
