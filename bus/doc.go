// Package bus is how hivebeat's roles talk to NATS: Connect with the defaults of
// an agent that lives for years, the codec of the wire's messages, and Pulse, the
// sender that worker and hive both beat by.
//
// It links nats.go and msgpack and nothing heavier, since every worker links it.
// The server is in bus/embedded.
package bus
