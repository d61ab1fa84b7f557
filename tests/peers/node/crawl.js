// Everything that a server shows, from the Root on: each node, its references both ways, each of its attributes. Returns
// how many nodes there were and what does not fit together.
"use strict";

const ua = require("node-opcua-client");

const { AttributeIds, BrowseDirection, NodeClass, StatusCodes } = ua;

// OPC 10000-3, 5: the attributes that a node of a class must have.
const BASE = ["NodeId", "NodeClass", "BrowseName", "DisplayName"];
const MANDATORY = {
    Object: ["EventNotifier"],
    Variable: ["Value", "DataType", "ValueRank", "AccessLevel", "UserAccessLevel", "Historizing"],
    Method: ["Executable", "UserExecutable"],
    ObjectType: ["IsAbstract"],
    VariableType: ["DataType", "ValueRank", "IsAbstract"],
    ReferenceType: ["IsAbstract", "Symmetric"],
    DataType: ["IsAbstract"],
    View: ["ContainsNoLoops", "EventNotifier"],
};
const OPTIONAL = { VariableType: ["Value"] };
const ATTRIBUTES = Object.keys(AttributeIds).filter((name) => Number.isNaN(Number(name)) && name !== "INVALID" && name !== "LAST");
const HAS_TYPE_DEFINITION = "ns=0;i=40";
const HAS_SUBTYPE = "ns=0;i=45";

// A page of few references at a time, so that continuation points are used throughout.
async function references(session, nodeId) {
    session.requestedMaxReferencesPerNode = 7;
    let result = await session.browse({ nodeId, browseDirection: BrowseDirection.Both, includeSubtypes: true, resultMask: 63 });
    const found = [...(result.references ?? [])];
    let pages = 1;
    while (result.continuationPoint?.length) {
        result = await session.browseNext(result.continuationPoint, false);
        found.push(...(result.references ?? []));
        pages += 1;
    }
    return { status: result.statusCode, found, pages };
}

module.exports = async function crawl(session) {
    const faults = [];
    const nodes = new Map();
    const queue = ["ns=0;i=84"];
    const seen = new Set(queue);
    let pages = 0;
    while (queue.length) {
        const id = queue.shift();
        const { status, found, pages: read } = await references(session, id);
        if (!status.isGood()) faults.push(`${id}: browse is ${status.name}`);
        const all = found.map((r) => ({
            type: r.referenceTypeId.toString(),
            forward: r.isForward,
            target: r.nodeId.toString(),
            nodeClass: NodeClass[r.nodeClass],
            name: r.browseName.toString(),
        }));
        const keys = all.map((r) => `${r.type} ${r.forward} ${r.target}`);
        if (new Set(keys).size !== keys.length) faults.push(`${id}: a reference comes twice`);
        nodes.set(id, all);
        pages += read;
        for (const { target } of all) {
            if (!seen.has(target)) {
                seen.add(target);
                queue.push(target);
            }
        }
    }

    const classes = new Map();
    const shown = new Map();
    for (const [id, all] of nodes) {
        const values = await session.read(ATTRIBUTES.map((name) => ({ nodeId: id, attributeId: AttributeIds[name] })));
        const attributes = Object.fromEntries(ATTRIBUTES.map((name, index) => [name, values[index]]));
        const good = (name) => attributes[name].statusCode.isGood();
        const value = (name) => attributes[name].value.value;
        const fault = (what) => faults.push(`${id} (${good("BrowseName") ? value("BrowseName").toString() : "?"}): ${what}`);
        if (!good("NodeClass")) {
            fault(`NodeClass is ${attributes.NodeClass.statusCode.name}`);
            continue;
        }
        const nodeClass = NodeClass[value("NodeClass")];
        classes.set(nodeClass, (classes.get(nodeClass) ?? 0) + 1);
        shown.set(id, `${nodeClass} ${value("BrowseName")}`);
        for (const name of [...BASE, ...MANDATORY[nodeClass]]) {
            const status = attributes[name].statusCode;
            // A variable's value may be bad, or not for reading; that there is none is another matter.
            const isBad = name === "Value" ? status.equals(StatusCodes.BadAttributeIdInvalid) : !status.isGood();
            if (isBad) fault(`${name} is ${status.name}`);
        }
        const own = MANDATORY[nodeClass].concat(OPTIONAL[nodeClass] ?? []);
        const foreign = Object.values(MANDATORY).flat().filter((name) => !own.includes(name) && good(name));
        if (foreign.length) fault(`a ${nodeClass} has ${foreign}`);
        if (good("NodeId") && value("NodeId").toString() !== id) fault(`its NodeId is ${value("NodeId")}`);

        const types = all.filter((r) => r.forward && r.type === HAS_TYPE_DEFINITION);
        const wanted = nodeClass === "Object" || nodeClass === "Variable" ? 1 : 0;
        if (types.length !== wanted) fault(`${types.length} type definitions`);
        if (nodeClass.endsWith("Type") && all.filter((r) => !r.forward && r.type === HAS_SUBTYPE).length > 1) fault("several supertypes");
        for (const { type, forward, target } of all) {
            const back = nodes.get(target)?.find((r) => r.target === id && r.type === type && r.forward !== forward);
            // OPC 10000-3, 4.5.4: instances need not be listed at their types.
            if (!back && !(forward && type === HAS_TYPE_DEFINITION)) fault(`${target} does not know of ${type} ${forward ? "from" : "to"} it`);
            if (!nodes.get(target)?.length) fault(`${target} is referenced and has no references`);
        }
        if (nodeClass === "Variable" && attributes.Value.statusCode.isGood()) {
            checkValue(attributes, value, fault);
        }
    }
    for (const [id, all] of nodes) {
        for (const { target, nodeClass, name } of all) {
            const there = shown.get(target);
            if (there !== `${nodeClass} ${name}`) faults.push(`${id}: a reference shows ${target} as ${nodeClass} ${name}, which is ${there}`);
        }
    }
    return { nodes: nodes.size, pages, classes: Object.fromEntries(classes), faults };
};

function checkValue(attributes, value, fault) {
    const { arrayType, dimensions } = attributes.Value.value;
    const rank = value("ValueRank");
    const isArray = arrayType !== ua.VariantArrayType.Scalar;
    const dataType = ua.DataType[attributes.Value.value.dataType];
    if (dataType === "Null") return;
    if (rank === -1 && isArray) fault("an array where ValueRank says scalar");
    if (rank >= 1 && !isArray) fault(`a scalar where ValueRank says ${rank}`);
    if (rank > 1 && dimensions?.length !== rank) fault(`${dimensions?.length} dimensions where ValueRank says ${rank}`);
    const declared = value("DataType").toString();
    // The built-in types, whose DataType is their own id or a subtype (OPC 10000-6, 5.1.2); what is more is for the eye.
    const own = `ns=0;i=${attributes.Value.value.dataType}`;
    const plain = /^ns=0;i=([1-9]|1[0-9]|2[01])$/;
    if (plain.test(declared) && declared !== own) fault(`a ${dataType} where DataType says ${declared}`);
    if (value("UserAccessLevel") & ~value("AccessLevel")) fault("UserAccessLevel says more than AccessLevel");
    if (!(value("AccessLevel") & 1)) fault("a value that is not readable was read");
}
