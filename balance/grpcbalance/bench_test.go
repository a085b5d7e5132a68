package grpcbalance_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/leastrequest"
	"google.golang.org/grpc/balancer/roundrobin"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

// Our policies and gRPC's own, through the real balancers with connections that are
// not.
func BenchmarkPick(b *testing.B) {
	ctx := unaryContext(b, grpcbalance.DialOptions(grpcbalance.LeastRequest))
	for _, backends := range []int{4, 100} {
		for _, policy := range append(policies, leastrequest.Name, roundrobin.Name) {
			b.Run(fmt.Sprintf("impl=%s/backends=%d", policy, backends), func(b *testing.B) {
				c := fake(b, policy, `{}`)
				c.ready(fakeEndpoints(backends)...)
				p := c.picker()
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						r, err := p.Pick(balancer.PickInfo{Ctx: ctx})
						if err != nil {
							panic(err)
						}
						if r.Done != nil {
							r.Done(balancer.DoneInfo{BytesSent: true})
						}
					}
				})
			})
		}
	}
}
