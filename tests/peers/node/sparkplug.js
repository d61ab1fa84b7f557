// Sparkplug's payloads by the library of its authors: one JSON request a line, one answer a line.
//   {"decode": BASE64}                -> the payload, with bytes as arrays and 64-bit numbers as numbers
//   {"encode": {metrics: [...]}}      -> BASE64
// A metric of DATA has no type, so its value is left as it is on the line: {"decode": BASE64, "types": {NAME: TYPE}} gives it one.

const lines = require('readline').createInterface({ input: process.stdin });
const sparkplug = require('sparkplug-payload').get('spBv1.0');
const Payload = require('sparkplug-payload/lib/sparkplugPayloadProto').org.eclipse.tahu.protobuf.Payload;

const plain = (_key, value) =>
  value && value.low !== undefined && value.high !== undefined ? value.high * 2 ** 32 + (value.low >>> 0)
  : value && value.type === 'Buffer' ? value.data
  : value instanceof Uint8Array ? [...value]
  : typeof value === 'bigint' ? Number(value) : value;

lines.on('line', (line) => {
  const request = JSON.parse(line);
  let answer;
  try {
    if (request.encode) {
      answer = Buffer.from(sparkplug.encodePayload(request.encode)).toString('base64');
    } else {
      const payload = Payload.decode(Buffer.from(request.decode, 'base64'));
      for (const metric of payload.metrics) {
        if (request.types && !Object.hasOwn(metric, 'datatype')) metric.datatype = request.types[metric.name];
      }
      answer = sparkplug.decodePayload(Payload.encode(payload).finish());
    }
  } catch (error) {
    answer = { error: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(answer, plain) + '\n');
});
