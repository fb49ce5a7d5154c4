// Package bus connects programs to the NATS of a fabric. It provides Connect and Drain,
// with defaults for a long-running agent; the codec of the wire messages; and Pulse, the
// sender that workers and hives use for their beats.
//
// It links only nats.go and msgpack, because every worker links it. The server is in
// bus/embedded.
//
// # A sender of your own
//
// Pulse is not tied to workers and hives. Another kind of process, such as a storage
// node, becomes visible in the same way:
//
//   - Define the message. It holds an id, the incarnation, a sequence number, the promise
//     (Every) and the facts. The incarnation must be higher after each start of the
//     process: the Unix time in µs is. The sequence number grows by one with each message.
//   - Choose subjects of your own, such as storage.nodes and storage.rollcall. The
//     subjects below hive. and queen. belong to the fabric.
//   - Create a Pulse with NewPulse. Snapshot builds the message from the facts of the
//     moment, and marks it as a goodbye if its reason is WhyLast. Send encodes and
//     publishes it. Flush is nc.FlushWithContext.
//   - Pass on what happens: Changed for a change that receivers must learn at once, Touch
//     for facts that can wait a second, Reconnected after each reconnect, and Call with
//     ParseSpread of the payload for each roll call. Pulse keeps to its pace, however
//     often they are called.
//   - Run sends until its context ends or Stop is called; the goodbye is its last
//     message. Drain closes the connection afterwards.
//
// The receiver judges such senders by package verdict. The example of Pulse is a storage
// node together with its receiver.
package bus
