"""OpenID Connect: providers that say who people are, and issuers of tokens that machines of the grid bring."""

from perdure.adapters.oidc.grid import GridIssuer, GridIssuerSettings
from perdure.adapters.oidc.provider import OidcProvider, OidcSettings

__all__ = ["GridIssuer", "GridIssuerSettings", "OidcProvider", "OidcSettings"]
