package grpclimit_test

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
)

// Each user has a limit for each method. A server gets the interceptors by
// grpc.ChainUnaryInterceptor(limits.Unary) and grpc.ChainStreamInterceptor(limits.Stream).
func Example() {
	perUser, err := ratelimit.NewKeyed[string](ratelimit.Per(2, time.Minute), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	limits, err := grpclimit.NewLimits(perUser, grpclimit.Options{
		Name: "user",
		Key:  grpclimit.Join(grpclimit.Method, grpclimit.Metadata("x-user")), // checked by an interceptor before
	})
	if err != nil {
		panic(err)
	}

	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-user", "ann"))
	handler := func(context.Context, any) (any, error) { return "hello", nil }
	for range 3 {
		reply, err := limits.Unary(ctx, "request", &grpc.UnaryServerInfo{FullMethod: "/greeter.Greeter/Hello"}, handler)
		fmt.Println(reply, status.Code(err))
	}
	// Output:
	// hello OK
	// hello OK
	// <nil> ResourceExhausted
}
