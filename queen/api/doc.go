// Package api is the JSON that a queen is asked in and answers with: requests,
// answers, error codes and cursors. The same types serve queen.api.<verb> on NATS
// (docs/PROTOCOL.md, section 8), /v1/… on HTTP, and the Go client. It imports the
// root package and the standard library only.
//
// Compatibility: keys are only ever added. A queen refuses a request with a key
// that it does not know, or that the verb does not take, as a filter silently not
// applied would be a wrong answer.
package api
