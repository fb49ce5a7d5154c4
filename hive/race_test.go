//go:build race

package hive

// crowd is how many clients die or come back at once in tests. The race detector makes
// a thousand clients in one process, with their server, too slow to measure anything.
const crowd = 200
