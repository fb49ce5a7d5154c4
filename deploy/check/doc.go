// Package check tests the files of deploy against a live fabric, with Prometheus' own
// parser and engine. It is a module of its own, so that nobody who uses hivebeat has
// Prometheus among its requirements: go test ./... in deploy runs it.
package check
