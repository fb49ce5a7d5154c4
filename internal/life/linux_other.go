//go:build !linux

package life

import "errors"

// Port needs /proc.
func Port(uint16, Config) (Source, error) {
	return nil, errors.New("the process that listens on a port can be found on Linux only")
}

// Unit needs systemd.
func Unit(string, Config) (Source, error) {
	return nil, errors.New("units of systemd are on Linux only")
}
