//go:build !race

package hive

// crowd is how many clients die or come back at once in tests.
const crowd = 1000
