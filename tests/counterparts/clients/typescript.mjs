// An MCP client made of the official TypeScript SDK, driven line by line: tests/clients.py is the other side.
//
//   node typescript.mjs '{"sdk": "v1" | "v2" | "2025-03" | "2025-06", "url": "http://127.0.0.1:8000/mcp", ...}'
//     sdk                    1.x, 2.x, or the last of 1.x that speaks an old revision of MCP
//     redirectUri            where the authorization server sends the browser; nothing listens there
//     clientMetadataUrl      the client's id metadata document, if it has one
//     grants                 grant types to register (authorization_code, refresh_token)
//     dpop                   of v2: whether to request tokens that are bound to a key (RFC 9449)
//     mode                   of v2: "auto" speaks the newest protocol the server knows
//
// In: {"do": "connect"}, {"do": "call", "tool": …}, {"do": "close"}, and {"callback": URL} after an
// {"authorize": URL}. Out: that, and for each "do" one {"done": …} or {"failed": …}.
import readline from 'node:readline';

const options = JSON.parse(process.argv[2]);
const names = { v1: '@modelcontextprotocol/sdk', '2025-03': 'sdk-2025-03', '2025-06': 'sdk-2025-06' };
const load = async (...modules) => Object.assign({}, ...(await Promise.all(modules.map((name) => import(name)))));
const { Client, DpopSession, StreamableHTTPClientTransport, UnauthorizedError } = options.sdk === 'v2'
  ? await load('@modelcontextprotocol/client')
  : await load(...['index', 'streamableHttp', 'auth'].map((name) => `${names[options.sdk]}/client/${name}.js`));

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const hear = async () => JSON.parse((await lines.next()).value ?? '{"do": "close"}');

// What a host application keeps for its user.
const kept = {};
let callback;
const provider = {
  redirectUrl: options.redirectUri,
  clientMetadataUrl: options.clientMetadataUrl,
  clientMetadata: {
    client_name: `TypeScript ${options.sdk}`,
    redirect_uris: [options.redirectUri],
    grant_types: options.grants ?? ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  state: () => (kept.state = crypto.randomUUID()),
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (discovery) => { kept.discovery = discovery; },
  invalidateCredentials: (scope) => {
    for (const name of scope === 'all' ? ['client', 'tokens', 'verifier', 'discovery'] : [scope]) delete kept[name];
  },
  async redirectToAuthorization(url) {
    say({ authorize: String(url) });
    callback = new URL((await hear()).callback);
  },
};

if (options.dpop) {
  const session = await DpopSession.create();
  provider.dpop = () => session;
}

let transport;
const client = new Client(
  { name: 'asgi-mcp-auth-tests', version: '1' },
  options.sdk === 'v2' && options.mode ? { versionNegotiation: { mode: options.mode } } : undefined,
);

// The SDK stops once it has sent the user to the authorization server; finishing and trying again is the host's part.
async function authorized(attempt) {
  for (let rounds = 0; ; rounds += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || rounds === 2) throw error;
      const query = callback.searchParams;
      if (provider.state && query.get('state') && query.get('state') !== kept.state) throw new Error('another state');
      if (query.get('error')) throw new Error(`refused: ${query.get('error')}`);
      await transport.finishAuth(...(options.sdk === 'v2' ? [query] : [query.get('code'), query.get('iss') ?? undefined]));
    }
  }
}

const actions = {
  connect: () => authorized(async () => {
    await client.close();
    transport = new StreamableHTTPClientTransport(new URL(options.url), { authProvider: provider });
    await client.connect(transport);
    return client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null;
  }),
  list: () => authorized(async () => (await client.listTools()).tools.map((tool) => tool.name)),
  call: ({ tool }) => authorized(async () => (await client.callTool({ name: tool, arguments: {} })).content[0].text),
  registered: async () => kept.client?.client_id ?? null,
};

for (;;) {
  const request = await hear();
  if (request.do === 'close') break;
  try {
    say({ done: await actions[request.do](request) });
  } catch (error) {
    say({ failed: `${error.name ?? ''}: ${error.message ?? error}` });
  }
}
await client.close().catch(() => {});
process.exit(0);
