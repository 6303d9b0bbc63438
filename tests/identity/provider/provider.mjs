// A real provider of OpenID Connect for the tests: node provider.mjs PORT [OUR_ADDRESS]
import Provider from "oidc-provider";

const [port, ours] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const people = {
  ada: {
    name: "Ada Example",
    email: "ada@example.org",
    orcid: "https://orcid.org/0000-0002-1825-0097",
    eduperson_entitlement: ["urn:x:example.org:group:beamline", "urn:x:example.org:group:all"],
  },
  bob: { name: "Bob Example", email: "ada@example.org", eduperson_entitlement: Array.from({ length: 3000 }, (_, n) => `urn:x:many:${n}`) },
};

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "perdure",
      client_secret: "a secret of the tests: 100 % + & safe",
      application_type: "native", // which may come back to any port of this machine
      redirect_uris: ["http://127.0.0.1/login/hall/callback"],
      response_types: ["code"],
      grant_types: ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      post_logout_redirect_uris: ["http://127.0.0.1/login/hall/logged-out"],
      ...(ours && { backchannel_logout_uri: `${ours}/api/v1/login/providers/hall/logout`, backchannel_logout_session_required: true }),
    },
  ],
  jwks: { keys: [JSON.parse(process.env.HALL_KEY)] },
  claims: { openid: ["sub"], profile: ["name", "orcid", "eduperson_entitlement"], email: ["email"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["of the tests"] },
  features: {
    backchannelLogout: { enabled: true },
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // it keeps away from this machine of itself
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...(people[id] ?? {}) }) }),
  pkce: { required: () => true },
});

provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
