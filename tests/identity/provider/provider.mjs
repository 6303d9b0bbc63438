// A real provider of OpenID Connect for the tests: node provider.mjs PORT
import Provider from "oidc-provider";

const [port] = process.argv.slice(2);
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
    },
  ],
  claims: { openid: ["sub"], profile: ["name", "orcid", "eduperson_entitlement"], email: ["email"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["of the tests"] },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...(people[id] ?? {}) }) }),
  pkce: { required: () => true },
});

provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
