// Package hivebeat holds what the roles of a heartbeat fabric share on the
// wire: the subjects, the messages, their limits and the words in them.
//
// Workers beat to the hive of their machine, the hive sends the queen one
// snapshot for all of them, and the queen answers who is alive, what it serves,
// how much VRAM is free, and how sure that answer is. The roles are in the
// packages worker, hive and queen; they never import one another and meet on the
// wire only, through the types of this package. docs/PROTOCOL.md is normative
// for everything here.
//
// Compatibility: within wire version 1 keys are only ever added, a reader skips
// keys it does not know, and a word it does not know (a state, a verdict, a
// cause) is kept as it came.
package hivebeat
