//go:build race

package hive

// crowd is how many clients die or come back at once in tests. With the race detector,
// a thousand clients and their server in one process are too slow to measure anything.
const crowd = 200
