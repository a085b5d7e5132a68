// Package grpcbalance makes the strategies of package balance policies of a gRPC
// client. gRPC resolves, connects and watches health; the policy chooses, for each
// RPC, one of the connections that are ready.
//
// # Use
//
// Register at the start of main, and name a policy when you make a channel:
//
//	func main() {
//		grpcbalance.Register()
//		...
//		conn, err := grpc.NewClient("dns:///shop:443", append(
//			grpcbalance.DialOptions(grpcbalance.LeastRequest),
//			grpc.WithTransportCredentials(creds))...)
//
// # Which policy
//
//   - [LeastRequest], unless you know better. Slow and busy backends get less; so do
//     those that hold many streams.
//   - [LeastLatency] if backends differ in speed, or are near and far, and most RPCs
//     are unary and alike.
//   - [RoundRobin] if RPCs are alike and exact shares matter more than load. It still
//     leaves out what fails, which gRPC's own does not.
//   - [Random], to compare with.
//
// Against gRPC's own: round_robin is the cheapest, and right for backends that are
// alike and healthy. least_request_experimental counts RPCs under way too, but draws
// its candidates with replacement, knows no weights, and sends more to a backend that
// fails at once. weighted_round_robin follows what servers report of their load, and
// needs servers that do.
//
// # Where not to use it
//
// A policy chooses a connection for an RPC. A stream stays where it began, for ever:
// if your streams last for hours, what balances them is that servers end them now and
// then (grpc/keepalive's MaxConnectionAge). To send the same key to the same backend,
// use gRPC's ring_hash. Behind a proxy or a Kubernetes ClusterIP there is only one
// address, and nothing to choose: use a headless service with the dns resolver. It
// connects to all addresses; with hundreds of them, put gRPC's
// random_subsetting_experimental above it.
//
// # Config
//
// The knobs are in the service config, after the name of the policy. All are optional;
// what is not given is the default of package balance, except for slowStart.
//
//	{"loadBalancingConfig": [{"evenkeel_least_request": {
//		"choices": 2,
//		"zone": {"local": "eu-1a", "min": 3, "clients": 0.3},
//		"health": {
//			"penalty": "1s", "consecutive": 5,
//			"successRate": 0.8, "interval": "10s", "volume": 100,
//			"maxEjected": 0.1, "keep": 1, "baseEjection": "30s", "maxEjection": "300s",
//			"panic": 0.5, "slowStart": "-1s"
//		},
//		"failureCodes": ["UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED",
//			"INTERNAL", "UNAVAILABLE", "DATA_LOSS"]
//	}}]}
//
// "choices" is for [LeastRequest], and "decay", a duration, for [LeastLatency]. See
// [balance.Health] and [balance.Zone] for the rest. A value that is out of range is an
// error; a field that is not known is ignored and logged, as gRPC asks. When a resolver
// brings another config, everything is learnt anew.
//
// "slowStart" is off by default, and warms up connections if it is on: to the policy, a
// backend whose connection was lost is a new one when it comes back, as it is after
// each MaxConnectionAge, and the first of all to be connected is not new among others.
//
// The zone and the weight of a backend come from the resolver, by [SetZone] and
// [SetWeight]; weights set by xDS are heeded too.
//
// # Membership
//
// A backend is an endpoint of the resolver, by the set of its addresses; a pick_first
// of gRPC connects to one of them. It is in the set while that connection is ready,
// and, with a healthCheckConfig, while it says that it is serving. What is known of it
// is kept as long as it stays in the set, whatever happens to the others. When none is
// ready, RPCs wait or fail exactly as they do with round_robin.
//
// # Outcomes
//
// The codes of "failureCodes" are the backend's fault: they cost it a penalty and may
// eject it. All other errors, such as INVALID_ARGUMENT, NOT_FOUND or ABORTED, say
// something of the request and count as successes. CANCELLED counts as neither, nor
// does an RPC that never left because its connection was lost: that is gRPC's to see.
// Leave RESOURCE_EXHAUSTED out if your servers use it for the quota of a caller, and
// UNKNOWN if they return errors without a status; add UNIMPLEMENTED while servers of
// two versions run side by side.
//
// With UNAVAILABLE or RESOURCE_EXHAUSTED a server may ask to be left alone for a time,
// by the trailer grpc-retry-pushback-ms or by a google.rpc.RetryInfo. The policy heeds
// that for all RPCs, within the bounds of [balance.Health].
//
// A retry of gRPC's, by a retryPolicy in the service config, goes to a backend that
// has not failed the same call, if there is one. The interceptors of [DialOptions] see
// to that.
//
// # Streams
//
// A stream counts as an RPC under way until it ends; one that is neither read to its
// end nor cancelled, which gRPC forbids, counts for ever. How long it lasts says nothing of
// its backend, so that no latency is learnt from it. gRPC does not tell a policy what
// is a stream; the interceptors of [DialOptions] do. An RPC that did not pass them is
// taken for a stream.
//
// # Reports of load
//
// What servers report of their utilization with their answers (ORCA, package
// grpc/orca) comes to [balance.Pick]'s Report: application utilization or, without it,
// that of the processor. With [LeastRequest] it decides between candidates that have
// as many RPCs under way.
//
// # Stats
//
// [Registry.Channels] yields the channels with what is known of each of their
// backends, and [Registry.Watch] tells when one is ejected or comes back.
//
// # Cost
//
// A pick allocates once, 64 bytes for the function with which gRPC ends it, where gRPC's
// least_request allocates three times, 72 bytes together. It takes no lock. The policy has
// no goroutine, and nothing is left of it after ClientConn.Close.
//
// The packages of gRPC that it stands on, endpointsharding above all, are marked
// experimental: a later gRPC may need a later version of this module.
package grpcbalance
