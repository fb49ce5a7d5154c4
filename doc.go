// Package hivebeat defines what the roles of a heartbeat fabric share on the
// wire: subjects, messages, their limits and their vocabulary.
//
// Workers beat to the hive of their machine. The hive sends the queen one
// snapshot for all of them. The queen answers which workers are alive, what
// they serve, how much VRAM is free, and how certain each answer is. The roles
// are in the packages worker, hive and queen. These packages never import one
// another; they communicate only over the wire, with the types of this package.
// docs/PROTOCOL.md is normative for everything here.
//
// Compatibility: within wire version 1 keys are only ever added. A reader skips
// keys that it does not know, and keeps an unknown word (a state, a verdict, a
// cause) unchanged.
package hivebeat
