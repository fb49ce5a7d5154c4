// Package client queries queens over NATS: which workers are alive, their models,
// recent changes, and the workers that can take work. Its only dependency beyond the root package is
// nats.go.
//
// Each question has a method:
//
//   - Summary, Hive, Worker and History return one value.
//   - Hives, Workers, Events and Holds are sequences of rows. They fetch a page at a time,
//     while the caller iterates. HivePages, WorkerPages, EventPages and HoldPages are the
//     same lists page by page.
//   - Pick, Hold and Release choose places for work, reserve them and give them back.
//   - Watch is the sequence of changes.
//
// Every result has a Status next to its data. It names the queen that answered, and its
// Unsure lists why the answer may be incomplete. Check Status.Sure where an absent worker
// matters: a queen that has just started may not have heard of it yet.
//
// Any queen may give an answer. The answers of a client from Follow all come from one
// queen, as do the rows of one sequence.
//
// If a queen refuses a request, the error is an *Error, and the result still has its
// Status. Use errors.Is to branch on the errors that it wraps, ErrNotFound for example.
//
// The package implements docs/PROTOCOL.md, section 8. Ask is the wire form of all other
// methods.
package client
