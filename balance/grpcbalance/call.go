package grpcbalance

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
)

// DialOptions returns the options of a grpc.ClientConn that is to use one of the
// policies: a default service config that names it, and interceptors by which the
// policy tells unary RPCs from streams and retries from first attempts, neither of
// which gRPC tells it.
//
// An unknown policy makes grpc.NewClient return an error. A grpc.WithDefaultServiceConfig
// that follows replaces the service config, to set the knobs of the policy or those of
// gRPC; one that comes from the resolver goes before both.
func DialOptions(policy string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{%q:{}}]}`, policy)),
		grpc.WithChainUnaryInterceptor(markUnary),
		grpc.WithChainStreamInterceptor(markStream),
	}
}

func markUnary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoker(&call{Context: ctx, unary: true}, method, req, reply, cc, opts...)
}

func markStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return streamer(&call{Context: ctx}, desc, cc, method, opts...)
}

// call is what is known of one RPC, in the context of its picks.
type call struct {
	context.Context
	unary bool // immutable

	// failed holds the IDs of the backends that have been tried. gRPC makes the attempts
	// of a call one after the other, but whoever makes calls of his own with this
	// context, on a ClientConn without our interceptors, does not.
	failed atomic.Pointer[[]string]
}

type callKey struct{}

func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// callOf returns the call that a context belongs to, or nil if it is not known.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// fail notes a backend, for the next attempt to leave it out.
func (c *call) fail(id string) {
	for {
		old := c.failed.Load()
		next := []string{id}
		if old != nil {
			next = append(next, *old...)
		}
		if c.failed.CompareAndSwap(old, &next) {
			return
		}
	}
}

// tried returns the backends that have failed.
func (c *call) tried() []string {
	if failed := c.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}
