// Package grpclimit limits what clients may ask of a gRPC server, and keeps the server up
// when all of them together ask too much: ResourceExhausted for the client who is above
// his limit, Unavailable when there is no more to give. Both say when to come again.
//
// # At a glance
//
//   - [NewLimits]: interceptors for limits by client, tenant or method, decided together
//     from a [ratelimit.Keyed] each.
//   - [NewShed]: interceptors for the gates and the Shedder of package shed.
//   - [Peer], [Metadata], [User], [Method] and [Join] say who a client is.
//   - [Pacer]: the client's side, which waits before it is refused.
//
// A server uses them in this order, so that what is above a client's limit takes no
// place from the others:
//
//	limits, err := grpclimit.NewLimits(perUser, grpclimit.Options{Key: grpclimit.User(userOf)})
//	...
//	shedding, err := grpclimit.NewShed(gate, grpclimit.ShedOptions{})
//	...
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(authenticate, limits.Unary, shedding.Unary),
//		grpc.ChainStreamInterceptor(authenticateStream, limits.Stream, shedding.Stream),
//	)
//
// # What a client sees
//
// A refusal has the code ResourceExhausted or Unavailable, and these details: a RetryInfo
// with the time to wait, and for a limit a QuotaFailure whose violation has the policy's
// name as its subject. The trailer grpc-retry-pushback-ms says the same to the retries
// that gRPC makes by itself (gRFC A6): with it a client whose service config retries
// does so no earlier, or not at all if no wait helps.
//
// A call whose client has no key is refused with InvalidArgument: it does not share one
// limit with all others like it.
//
// The interceptors see every service of the server, that of health checks too. Leave it
// out by When, and make it shed.Critical: an orchestrator that is refused ends the
// process.
//
// # Streams
//
// A stream costs when it begins, and holds its permit until its handler returns. How long
// it lasted tells a gate that learns nothing.
//
// # Its own errors
//
// As in package httplimit: when a function of the options or of a limiter panics, or a cost is negative,
// the policy is left out for the call, the others decide, and it is counted and reported.
//
// # Sources
//
// google/rpc/error_details.proto (RetryInfo, QuotaFailure). gRFC A6 (retries and
// pushback).
package grpclimit
