// Package api defines the JSON of requests to a queen and of its answers, with the
// error codes and cursors. The same types serve queen.api.<verb> on NATS
// (docs/PROTOCOL.md, section 8), /v1/… on HTTP, and the Go client. The package imports
// only the root package and the standard library.
//
// Compatibility: keys are only ever added. A queen refuses a request with a key that it
// does not know, or that the verb does not take, because a filter that is silently
// ignored would give a wrong answer.
package api
