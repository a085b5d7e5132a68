// Package grpcbalance makes the strategies of package balance policies of a gRPC
// client.
package grpcbalance
