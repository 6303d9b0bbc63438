"""SAML 2.0: institutions that say in signed XML who people are. Needs the extra `saml` and the program xmlsec1."""

from perdure.adapters.saml.provider import SamlProvider, find_missing
from perdure.adapters.saml.settings import SamlSettings

__all__ = ["SamlProvider", "SamlSettings", "find_missing"]
