package grpcbalance_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

// The usual use: name the policy, and nothing else changes.
func ExampleDialOptions() {
	grpcbalance.Register() // at the start of main

	options := append(grpcbalance.DialOptions(grpcbalance.LeastRequest),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("dns:///localhost:50051", options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.CanonicalTarget())
	// Output: dns:///localhost:50051
}

// Knobs, and gRPC's own retries and health checks, are in the service config.
func ExampleDialOptions_serviceConfig() {
	grpcbalance.Register()

	options := append(grpcbalance.DialOptions(grpcbalance.LeastLatency),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{
			"loadBalancingConfig": [{"evenkeel_least_latency": {
				"decay": "5s",
				"zone": {"local": "eu-1a"},
				"health": {"consecutive": 3, "baseEjection": "10s"}
			}}],
			"healthCheckConfig": {"serviceName": "shop"},
			"methodConfig": [{
				"name": [{"service": "shop.Catalogue"}],
				"retryPolicy": {
					"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
					"retryableStatusCodes": ["UNAVAILABLE"]
				}
			}]
		}`))
	conn, err := grpc.NewClient("dns:///localhost:50051", options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println("ok")
	// Output: ok
}

// replica is a server that answers health checks, or is full.
type replica struct {
	healthpb.UnimplementedHealthServer
	name string
	full bool
}

func (r *replica) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if r.full {
		return nil, status.Error(codes.ResourceExhausted, "the disk is full")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// connected is the number of backends to which a channel has a connection.
func connected(registry *grpcbalance.Registry, conn *grpc.ClientConn) (n int) {
	for channel := range registry.Channels() {
		if channel.Target() == conn.CanonicalTarget() {
			for range channel.Stats() {
				n++
			}
		}
	}
	return n
}

// A whole program: three servers, one of which fails at once whatever it is asked. A
// policy that takes turns without looking sends it a third of the RPCs; a policy that
// looks at the RPCs under way only, even more, since it always looks idle. Here it
// gets five, and is then left alone.
func Example() {
	registry := grpcbalance.Register()

	var endpoints []resolver.Endpoint
	names := map[string]string{} // by address
	for i, name := range []string{"replica-1", "replica-2", "replica-3"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Println(err)
			return
		}
		server := grpc.NewServer()
		healthpb.RegisterHealthServer(server, &replica{name: name, full: i == 2})
		go func() { _ = server.Serve(listener) }()
		defer server.Stop()
		addr := listener.Addr().String()
		names[addr] = name
		endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr}}})
	}

	// Stands for DNS, or whatever tells where the servers are.
	where := manual.NewBuilderWithScheme("example")
	where.InitialState(resolver.State{Endpoints: endpoints})

	options := append(grpcbalance.DialOptions(grpcbalance.RoundRobin),
		grpc.WithResolvers(where),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("example:///replicas", options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	// Not needed in a service, where the first RPC waits for the first connection.
	conn.Connect()
	for range time.Tick(time.Millisecond) {
		if connected(registry, conn) == len(endpoints) {
			break
		}
	}

	failed := 0
	client := healthpb.NewHealthClient(conn)
	for range 1000 {
		if _, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{}); err != nil {
			failed++
		}
	}
	fmt.Println(failed, "of 1000 failed")
	for channel := range registry.Channels() {
		if channel.Target() != conn.CanonicalTarget() {
			continue
		}
		for backend, stats := range channel.Stats() {
			if stats.Failures > 0 {
				fmt.Printf("%s: %d picks, %d failures, %v\n", names[backend.ID], stats.Picks, stats.Failures, stats.State)
			}
		}
	}
	// Output:
	// 5 of 1000 failed
	// replica-3: 5 picks, 5 failures, ejected
}
