// A real OAuth 2.1 authorization server (npm oidc-provider) on loopback, for the tests.
// tests/processes.py starts and drives it; by hand: PORT=4000 node server.mjs
//
//   PORT     port on 127.0.0.1 (4000)
//   ISSUER   issuer identifier (http://127.0.0.1:PORT); may have a path, .../tenant1
//   AT_ALG   algorithm of the access tokens (RS256): PS256, ES256, EdDSA, Ed25519, ...
//   AT_TTL   lifetime of the access tokens in seconds (300)
//   SCOPES   scopes of every protected resource ("mcp:read mcp:write mcp:admin")
//   AT_FORMAT  "jwt", or "opaque": tokens that only introspection explains
//   AHEAD    seconds that its clock is ahead of the real one (0)
//   LOGOUT   where back-channel logout of the client native is sent (nowhere)
//   KEYS     private JWKs as a JSON array, the signing key first (a new one)
//
// Control API, outside of the issuer's path and of the statistics:
//   GET  /__control/stats         {"/path": requests, ...}; POST resets
//   POST /__control/rotate        {"mode": "stage" | "roll" | "drop" | "replace"}
//   POST /__control/fault         {"path", "times" (always), "delay_ms", "destroy" or "status",
//                                 "headers", "body"}; {} removes all faults
//   POST /__control/logout        {"sub"}: send the client native a back-channel logout token
//   GET  /__control/jwks-private  the private keys, to sign bad tokens with a good key

import crypto from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import * as jose from 'jose';
import { errors, Provider } from 'oidc-provider';

const PORT = Number(process.env.PORT ?? 4000);
const ISSUER = process.env.ISSUER ?? `http://127.0.0.1:${PORT}`;
const ALG = process.env.AT_ALG ?? 'RS256';
const TTL = Number(process.env.AT_TTL ?? 300);
const FORMAT = process.env.AT_FORMAT ?? 'jwt';
const SCOPES = process.env.SCOPES ?? 'mcp:read mcp:write mcp:admin';
const now = Date.now;
Date.now = () => now() + Number(process.env.AHEAD ?? 0) * 1000;
const MOUNT = new URL(ISSUER).pathname.replace(/\/$/, '');

// --- keys

async function newKey() {
  const options = { extractable: true, ...(ALG === 'EdDSA' ? { crv: 'Ed25519' } : {}) };
  const { privateKey } = await jose.generateKeyPair(ALG, options);
  const kid = `${ALG.toLowerCase()}-${crypto.randomBytes(4).toString('hex')}`;
  return { ...(await jose.exportJWK(privateKey)), kid, alg: ALG, use: 'sig' };
}

let keys = process.env.KEYS ? JSON.parse(process.env.KEYS) : [await newKey()]; // the provider signs with the first key that fits
let staged = null;

async function rotate(mode) {
  const next = mode === 'roll' && staged ? staged : await newKey();
  const others = keys.filter((key) => key !== next);
  if (mode === 'stage') keys = [...keys, next]; // published, not used yet
  else if (mode === 'roll') keys = [next, ...others]; // used, and the old one still published
  else if (mode === 'drop') keys = [keys[0]]; // only the signing key
  else if (mode === 'replace') keys = [next]; // without notice
  else throw new Error(`no such rotation: ${mode}`);
  staged = mode === 'stage' ? next : null;
  // A provider's keys are fixed when it is made. A new one over the same store is what a
  // server restarted with a new key file would be: grants and sessions live on.
  provider = newProvider();
}

// --- token exchange, which oidc-provider leaves to a grant of one's own

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const EXCHANGE_PARAMETERS = ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token',
  'actor_token_type', 'audience', 'resource', 'scope'];

async function exchange(provider, ctx) {
  const { client, params } = ctx.oidc;
  const key = async ({ kid }) => {
    const { d, p, q, dp, dq, qi, ...jwk } = keys.find((own) => own.kid === kid);
    return jose.importJWK(jwk, ALG);
  };
  let claims;
  try {
    if (params.subject_token_type !== ACCESS_TOKEN) throw new Error('another type');
    claims = (await jose.jwtVerify(params.subject_token, key, { issuer: ISSUER })).payload;
  } catch {
    throw new errors.InvalidRequest('the subject_token is invalid');
  }
  const resource = params.audience ?? params.resource;
  if (!resource) throw new errors.InvalidTarget('there is no audience');
  const token = new provider.AccessToken({
    accountId: claims.sub, client, scope: params.scope, gty: 'token-exchange',
  });
  token.resourceServer = new provider.ResourceServer(resource, {
    audience: resource, scope: params.scope, accessTokenTTL: TTL, accessTokenFormat: 'jwt', jwt: { sign: { alg: ALG } },
  });
  ctx.body = { access_token: await token.save(), issued_token_type: ACCESS_TOKEN, token_type: token.tokenType,
    expires_in: token.expiration, scope: params.scope };
}

// --- provider

// Ours, because the store that comes with the provider is lost with it in a rotation. Nothing
// expires here: the provider itself checks the times in what it finds.
const store = new Map();

function adapter(model) {
  const key = (id) => `${model}:${id}`;
  const removeIf = (test) => store.forEach((value, id) => test(value) && store.delete(id));
  return {
    upsert: async (id, payload) => store.set(key(id), payload),
    find: async (id) => store.get(key(id)),
    findByUid: async (uid) =>
      [...store].find(([id, value]) => id.startsWith(key('')) && value.uid === uid)?.[1],
    consume: async (id) => Object.assign(store.get(key(id)), { consumed: Date.now() / 1000 }),
    destroy: async (id) => store.delete(key(id)),
    revokeByGrantId: async (grantId) => removeIf((value) => value.grantId === grantId),
  };
}

function newProvider() {
  const made = new Provider(ISSUER, {
    adapter,
    jwks: { keys },
    cookies: { keys: ['tests only'] },
    clients: [
      { client_id: 'm2m', client_secret: 'm2m-secret', grant_types: ['client_credentials'],
        redirect_uris: [], response_types: [] },
      // The protected resource, which introspects.
      { client_id: 'rs', client_secret: 'rs-secret', grant_types: [], redirect_uris: [], response_types: [] },
      // The protected resource, which exchanges tokens (RFC 8693).
      { client_id: 'mcp-server', client_secret: 'mcp-secret', grant_types: [EXCHANGE], redirect_uris: [], response_types: [] },
      // "native": any port will do in the redirect URI.
      { client_id: 'native', application_type: 'native', token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        grant_types: ['authorization_code', 'refresh_token'],
        ...(process.env.LOGOUT ? { backchannel_logout_uri: process.env.LOGOUT } : {}) },
    ],
    // One algorithm for everything: ID tokens default to RS256, which would need a second key.
    clientDefaults: { id_token_signed_response_alg: ALG, introspection_signed_response_alg: ALG },
    enabledJWA: { idTokenSigningAlgValues: [ALG], introspectionSigningAlgValues: [ALG] },
    // Clients may register themselves (RFC 7591). They are refused scopes not listed here, and
    // bound to those they asked for, which would end every later step-up: hence no scope.
    scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
    extraClientMetadata: { properties: ['x'], validator: (c, k, v, client) => delete client.scope },
    // Its own dispatcher refuses loopback, where the receivers of back-channel logout are.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    responseTypes: ['code'],
    pkce: { required: () => true },
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (ctx, token) => ({
      ...(token.accountId ? { groups: ['dev', 'ops'] } : {}),
      ...(token.gty === 'token-exchange' ? { act: { sub: token.clientId } } : {}),
    }),
    interactions: { url: (ctx, interaction) => `${MOUNT}/interaction/${interaction.uid}` },
    ttl: { AccessToken: TTL, ClientCredentials: TTL, Grant: 3600, IdToken: 300,
      Interaction: 600, RefreshToken: 3600, Session: 3600 },
    features: {
      devInteractions: { enabled: false }, // HTML forms; see interact()
      clientCredentials: { enabled: true },
      backchannelLogout: { enabled: Boolean(process.env.LOGOUT) },
      dPoP: { enabled: true }, // a token request with a proof gets a bound token
      introspection: { enabled: true },
      jwtIntrospection: { enabled: true },
      revocation: { enabled: true },
      registration: { enabled: true },
      // With userinfo, the scope "openid" without a resource makes a token for userinfo.
      userinfo: { enabled: false },
      // RFC 8707: a token request that names no resource gets an opaque token.
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx, client, oneOf) => oneOf,
        useGrantedResource: () => true, // the token request need not repeat the resource
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource, scope: SCOPES, accessTokenTTL: TTL,
          accessTokenFormat: FORMAT, ...(FORMAT === 'jwt' ? { jwt: { sign: { alg: ALG } } } : {}),
        }),
      },
    },
  });
  made.registerGrantType(EXCHANGE, (ctx) => exchange(made, ctx), EXCHANGE_PARAMETERS);
  made.on('server_error', (ctx, error) => console.error(error));
  return made;
}

let provider = newProvider();

// Everybody is alice and agrees to everything: a login and a consent without a page.
async function interact(req, res) {
  const details = await provider.interactionDetails(req, res);
  if (details.prompt.name === 'login') {
    return provider.interactionFinished(req, res, { login: { accountId: 'alice' } });
  }
  const { grantId, session, params, prompt } = details;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(prompt.details.missingOIDCScope?.join(' ') ?? '');
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  const result = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(req, res, result, { mergeWithLastSubmission: true });
}

// --- HTTP

const stats = new Map();
let faults = [];

function reply(res, status, body) {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function control(req, res, action) {
  const text = (await req.toArray()).join('');
  const input = text ? JSON.parse(text) : {};
  if (action === 'stats') {
    if (req.method === 'POST') stats.clear();
    reply(res, 200, Object.fromEntries(stats));
  } else if (action === 'rotate') {
    await rotate(input.mode);
    reply(res, 200, { kids: keys.map((key) => key.kid) }); // the signing key first
  } else if (action === 'fault') {
    faults = input.path ? [...faults, { times: Infinity, ...input }] : [];
    reply(res, 200, faults);
  } else if (action === 'logout') {
    await (await provider.Client.find('native')).backchannelLogout(input.sub, 'session');
    reply(res, 200, {});
  } else if (action === 'jwks-private') {
    reply(res, 200, { keys });
  } else {
    reply(res, 404, { error: `no such control: ${action}` });
  }
}

// True if the request has been dealt with.
async function failedOnPurpose(req, res, path) {
  const fault = faults.find((candidate) => candidate.path === path && candidate.times > 0);
  if (!fault) return false;
  fault.times -= 1;
  await sleep(fault.delay_ms ?? 0);
  if (fault.destroy) {
    req.socket.destroy();
  } else if (fault.status) {
    res.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
    res.end(typeof fault.body === 'string' ? fault.body : JSON.stringify(fault.body ?? {}));
  }
  return Boolean(fault.destroy || fault.status); // with a delay only, the real answer follows
}

async function serve(req, res) {
  const [path] = req.url.split('?');
  if (path.startsWith('/__control/')) return control(req, res, path.slice(11));

  const counted = path.replace(/\/(auth|interaction)\/[^/]+$/, '/$1/*');
  stats.set(counted, (stats.get(counted) ?? 0) + 1);
  if (await failedOnPurpose(req, res, path)) return undefined;

  if (MOUNT) {
    // The provider knows nothing of its path: take it off, and say so the way Express does
    // (originalUrl, baseUrl), from which the provider makes the URLs in its metadata.
    if (path === `/.well-known/oauth-authorization-server${MOUNT}`) {
      req.url = '/.well-known/oauth-authorization-server'; // RFC 8414, section 3.1
    } else if (path.startsWith(`${MOUNT}/`)) {
      req.url = req.url.slice(MOUNT.length);
    } else {
      return reply(res, 404, { error: 'not_found' });
    }
    req.originalUrl = MOUNT + req.url;
    req.baseUrl = MOUNT;
  }
  return req.url.startsWith('/interaction/') ? interact(req, res) : provider.callback()(req, res);
}

const server = http.createServer((req, res) => {
  serve(req, res).catch((error) => {
    console.error(error);
    if (!res.headersSent) reply(res, 500, { error: error.message });
  });
});

server.listen(PORT, '127.0.0.1', () => console.log(`authorization server ready: ${ISSUER}`));
process.on('SIGTERM', () => process.exit(0)); // at once, also with delayed answers pending
