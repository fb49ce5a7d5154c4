// Package check tests the files of deploy against a live fabric, with Prometheus' own
// parser and engine. It is a separate module, so that users of hivebeat do not depend
// on Prometheus. To run it, run go test ./... in deploy.
package check
