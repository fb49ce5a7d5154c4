//go:build e2e

// Package rig runs the real programs in real processes for the end-to-end tests: hivebeat
// built from this tree, and nats-server and the nats CLI built from their modules.
package rig
