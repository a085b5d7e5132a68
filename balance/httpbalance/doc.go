// Package httpbalance puts a [balance.Balancer] under [net/http]: a [Transport] sends
// each request to one of several backends, learns from every response, and tries
// another backend when one fails. DNS, SRV records or a list say which backends there
// are.
//
// # The problem
//
// An http.Client that is given a host name connects to one of its addresses, and keeps
// to that connection. A slow server keeps its clients, a new one gets none, and one that
// has died costs each of them a timeout. A proxy in between would balance, but is one
// more hop, and one more thing that fails for all.
//
// The hard part of balancing in the client is knowing when a request has ended. If one
// path forgets to say so (a HEAD, a 304, a body closed early, an upgrade, a panic), the
// backend looks a little busier for ever, and in the end gets nothing.
//
// # The idea
//
//	balancer, err := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
//	...
//	dns, err := httpbalance.NewDNS("http://users.internal:8080", httpbalance.DNSOptions{})
//	...
//	go httpbalance.Follow(ctx, balancer, dns, httpbalance.FollowOptions{})
//	client := &http.Client{Transport: &httpbalance.Transport{Balancer: balancer}}
//	resp, err := client.Get("http://users/v1/42")
//
// The name in the URL, here users, is what the backends get as Host; where the request
// goes is the balancer's choice. Three things are told to the balancer: when the request
// has ended, how long the first byte took, and whether the backend is to blame for what
// went wrong. It then ejects backends that fail, as [balance.Health] says.
//
// # At a glance
//
//   - [Transport] for clients, and for [net/http/httputil.ReverseProxy].
//   - [Static] if the backends are known; [NewDNS] for a name with many addresses, such
//     as a headless service of Kubernetes; [NewSRV] for SRV records, with ports and
//     weights; [ResolverFunc] for any other registry.
//   - [Follow] to look again while the program runs.
//
// # Who is to blame
//
//   - The backend: an error of the connection, also in the middle of the body; a deadline
//     that passes; the statuses 429 and 5xx, but not 501 and 505.
//   - Nobody, so that the outcome is ignored: a caller that cancels, and a request whose
//     own body cannot be read.
//   - A caller that closes the body early has what it wanted: a success.
//
// # Retries
//
// A request that failed, or was answered with 429, 502, 503 or 504, is sent to another
// backend at once if it is idempotent and its body can be had again. [Transport] has the
// rules and the budget. There is no pause before a retry, since it goes elsewhere; and
// none to the same backend, since net/http repeats by itself what failed because an idle
// connection was closed. A 500 is not tried again: the next backend runs the same code.
//
// # Redirects
//
// A Transport sends every request to a backend, whatever its host, so a redirect to
// another site would go there too. A relative Location is right. If backends redirect
// to elsewhere, register the Transport for a scheme of its own, and only URLs with that
// scheme are balanced:
//
//	base := http.DefaultTransport.(*http.Transport).Clone()
//	base.RegisterProtocol("users", &httpbalance.Transport{Balancer: balancer, Base: base})
//	client := &http.Client{Transport: base}
//	resp, err := client.Get("users://users/v1/42")
//
// # What it brings
//
// Three servers on this machine, one of which is ten times slower (20 ms instead of 2),
// and so many requests that their turns keep it busy for three quarters of the time: the
// 99th percentile that the client sees over real connections, three seeds.
//
//	strategy       to the slow one   p99
//	RoundRobin     33 %              28 to 30 ms
//	LeastRequest   14 to 16 %        22 to 23 ms
//	LeastLatency   0.4 to 1.0 %      4 to 7 ms
//
// LeastRequest sends a request to the slow server whenever the others look as idle, so
// it removes the queue but not the slow answers. LeastLatency removes both. One latency
// raises its average by half at most, so that a short stall of the client, which makes
// all servers slow at once, does not make them all look alike.
//
//	go test -run '^$' -bench HTTPTail -benchtime 1x ./balance/httpbalance
//
// # When not to use it
//
//   - There is a load balancer, a mesh or a Kubernetes service of the usual kind before
//     the backends: the client then sees one address, and there is nothing to choose.
//   - gRPC: package grpcbalance balances by gRPC's own means.
//   - Requests that must go to one backend because it has their state: use package
//     shard.
//   - Requests that differ a thousandfold in cost: the count of requests and the time to
//     the first byte then say little of the load. Let the backends report it.
//   - With HTTP/2 and a Base that is shared with others nothing changes: each backend has
//     its connection. But http.Transport does not notice that a connection is dead while
//     it waits; set HTTP2.SendPingTimeout.
//
// # Sources
//
// RFC 9110 (idempotent methods, Retry-After), RFC 2782 (SRV), Finagle's RetryBudget,
// ORCA's load report as sent over HTTP by Envoy, and the RoundTripper contract of
// net/http.
package httpbalance
