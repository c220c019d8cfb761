"""The demo: the storefront under real traffic, watched from outside."""
