// Runs a piece of JavaScript against a server as a node-opcua client, for pytest (see ../node_opcua.py).
//
// The first argument is JSON: url, script, args, and for the client `policy`, `mode`, `identity` (a folder with cert.der
// and key.pem), `uri` (its ApplicationUri), `pki` (a folder for its trust list), `user` (what createSession takes),
// `retries` (of a connection; -1: for ever), `session: false` for a client that is connected and no more, and `patience`,
// the seconds that the script has.
// The script is the body of an async function with these names: ua, client, session, args, require, and
//   say(value)  one line of JSON to pytest
//   hear()      the next line from pytest
// What it returns is said as {"done": value}; what it throws as {"error": text}, for which pytest fails.
"use strict";

const path = require("node:path");
const readline = require("node:readline");
const ua = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

const options = JSON.parse(process.argv[2]);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// node-opcua speaks on stdout; that is for what the script says.
console.log = console.error;
// Resolves when it is said: an exit would cut off what is still on its way into a pipe.
const say = (value) => new Promise((said) => process.stdout.write(JSON.stringify(value) + "\n", said));
const hear = async () => JSON.parse((await lines.next()).value);

async function makeClient() {
    const certificates = new OPCUACertificateManager({
        rootFolder: options.pki,
        automaticallyAcceptUnknownCertificate: true,
    });
    await certificates.initialize();
    return ua.OPCUAClient.create({
        applicationName: "node-opcua of the tests",
        applicationUri: options.uri,
        clientCertificateManager: certificates,
        certificateFile: path.join(options.identity, "cert.der"),
        privateKeyFile: path.join(options.identity, "key.pem"),
        securityMode: ua.MessageSecurityMode[options.mode ?? "None"],
        securityPolicy: ua.SecurityPolicy[options.policy ?? "None"],
        endpointMustExist: false,
        connectionStrategy: { maxRetry: options.retries ?? 0, initialDelay: 50, maxDelay: 500 },
        requestedSessionTimeout: 60_000,
    });
}

async function main() {
    const late = async () => {
        await say({ error: `not done after ${options.patience} s` });
        process.exit(1);
    };
    setTimeout(late, options.patience * 1000).unref();
    const client = await makeClient();
    let session;
    try {
        await client.connect(options.url);
        if (options.session !== false) session = await client.createSession(options.user);
        const AsyncFunction = main.constructor;
        const script = new AsyncFunction("ua", "client", "session", "args", "say", "hear", "require", options.script);
        await say({ done: (await script(ua, client, session, options.args ?? {}, say, hear, require)) ?? null });
    } catch (error) {
        await say({ error: `${error.message ?? error}`, stack: error.stack });
        process.exitCode = 1;
    }
    // node-opcua keeps timers; a client that cannot say goodbye must not keep the test waiting.
    setTimeout(() => process.exit(), 2000).unref();
    await session?.close().catch(() => {});
    await client.disconnect().catch(() => {});
    process.exit();
}

main();
