// Package gozero makes go-zero's power of two choices a peer in the benchmarks.
//
// Its package is internal to zrpc, which compiles a thousand packages, Kubernetes'
// among them. The path of this module lies below zrpc, so that it may import that one
// package alone. Nothing but the benchmarks uses it, and nobody can fetch it.
package gozero

import (
	"google.golang.org/grpc/balancer"

	"github.com/zeromicro/go-zero/zrpc/internal/balancer/p2c"
)

// Builder is the policy that go-zero registers with gRPC.
func Builder() balancer.Builder { return balancer.Get(p2c.Name) }
