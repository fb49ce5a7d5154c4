// Package liveness holds what hives and queens share when they judge their senders
// (docs/PROTOCOL.md, sections 3 and 5), beyond the rule of package verdict: whether the
// observer itself can hear, connections that closed, two processes with one id, and
// when a sender must be checked again. It is pure: time comes in as an argument, there
// is no clock, goroutine or lock here, and no type is safe for concurrent use.
package liveness
