// The node-opcua server of the benchmarks: the same nodes as the others'. Arguments: port, PKI folder, pictures, rate.
"use strict";

const fs = require("node:fs");
const { DataType, MessageSecurityMode, SecurityPolicy } = require("node-opcua-client");
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

const NODES = 1000;
console.log = console.error;

function pictures(path) {
    const data = fs.readFileSync(path);
    const found = [];
    for (let at = 0; at < data.length; at += 4 + data.readUInt32LE(at)) {
        found.push(data.subarray(at + 4, at + 4 + data.readUInt32LE(at)));
    }
    return found;
}

async function main(port, pki, path, rate) {
    const certificates = new OPCUACertificateManager({ rootFolder: pki, automaticallyAcceptUnknownCertificate: true });
    const server = new OPCUAServer({
        port,
        hostname: "127.0.0.1",
        serverCertificateManager: certificates,
        securityModes: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
        securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
        // Enough for the benchmark's clients; its own limits are for small devices.
        maxConnectionsPerEndpoint: 200,
        serverCapabilities: { maxSessions: 200 },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const namespace = space.registerNamespace("urn:vedette:nodes");
    if (namespace.index !== 2) throw new Error(`namespace ${namespace.index}`);
    const variable = (node, value, dataType) => {
        const made = namespace.addVariable({
            organizedBy: space.rootFolder.objects,
            nodeId: `s=${node}`,
            browseName: node,
            dataType,
            minimumSamplingInterval: 10,
        });
        made.setValueFromSource({ dataType, value });
        return made;
    };
    variable("Tags/load/set_point", 50.0, DataType.Double);
    for (let wave = 1; wave <= NODES; wave++) variable(`Tags/load/waves/${wave}`, wave / NODES, DataType.Double);
    const frames = pictures(path);
    const image = variable("Cameras/noise/Camera Image", frames[0], DataType.ByteString);
    await server.start();
    process.stdout.write("ready\n");
    let count = 0;
    const next = () => image.setValueFromSource({ dataType: DataType.ByteString, value: frames[++count % frames.length] });
    if (rate) setInterval(next, 1000 / rate);
}

main(Number(process.argv[2]), process.argv[3], process.argv[4], Number(process.argv[5]));
