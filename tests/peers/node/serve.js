// A node-opcua server for pytest (see ../test_ua_client.py). The first argument is JSON: port, pki, limits (its
// OperationLimits), tags, and `clock`, by how many milliseconds its clock is ahead. Each line it reads is a JavaScript
// function body with the names ua, space, server and nodes; what that returns is said in a line of JSON.
"use strict";

const options = JSON.parse(process.argv[2]);
if (options.clock) {
    // The whole process lives at another time.
    const Real = Date;
    globalThis.Date = class extends Real {
        constructor(...args) {
            args.length ? super(...args) : super(Real.now() + options.clock);
        }
        static now() {
            return Real.now() + options.clock;
        }
    };
}
const readline = require("node:readline");
const ua = require("node-opcua-client");
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

console.log = console.error;
const say = (value) => process.stdout.write(JSON.stringify(value ?? null) + "\n");

async function main() {
    const certificates = new OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: true });
    const server = new OPCUAServer({
        port: options.port,
        hostname: "127.0.0.1",
        serverCertificateManager: certificates,
        securityModes: [ua.MessageSecurityMode.None],
        securityPolicies: [ua.SecurityPolicy.None],
        serverCapabilities: { operationLimits: options.limits ?? {}, maxBrowseContinuationPoints: 2 },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const namespace = space.registerNamespace("urn:plant");
    const folder = namespace.addFolder("ObjectsFolder", { browseName: "Plant", nodeId: "s=Plant" });
    const nodes = {};
    const { Double } = ua.DataType;
    for (let number = 0; number < (options.tags ?? 0); number++) {
        const name = `Temp${number}`;
        nodes[name] = namespace.addVariable({ organizedBy: folder, nodeId: `s=${name}`, browseName: name, dataType: Double });
        nodes[name].setValueFromSource({ dataType: Double, value: number });
    }
    nodes.Fast = namespace.addVariable({
        organizedBy: folder, nodeId: "s=Fast", browseName: "Fast", dataType: Double, minimumSamplingInterval: 0,
    });
    nodes.Fast.setValueFromSource({ dataType: Double, value: 0 });
    nodes.Level = namespace.addAnalogDataItem({
        organizedBy: folder, nodeId: "s=Level", browseName: "Level", dataType: Double,
        engineeringUnitsRange: { low: 0, high: 100 }, minimumSamplingInterval: 10,
    });
    nodes.Level.setValueFromSource({ dataType: Double, value: 50 });
    await server.start();
    say("serving");
    for await (const line of readline.createInterface({ input: process.stdin })) {
        try {
            const AsyncFunction = main.constructor;
            say(await new AsyncFunction("ua", "space", "server", "nodes", JSON.parse(line))(ua, space, server, nodes));
        } catch (error) {
            say({ error: error.stack });
        }
    }
}

main();
