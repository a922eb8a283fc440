package httptarget

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// guard checks the address of each dial, which is an IP address by then: a name that resolves to
// another address the second time is caught as well.
func guard(refuse func(netip.Addr) error) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		where, err := netip.ParseAddrPort(address)
		if err != nil {
			return refusedError{address: address, what: "no IP address"}
		}
		return refuse(where.Addr())
	}
}

// refusedError says that an address may not be called.
type refusedError struct{ address, what string }

func (e refusedError) Error() string {
	return fmt.Sprintf("%s is %s: allow private addresses for this endpoint, or name another host", e.address, e.what)
}

// block is a part of the address space that no endpoint on the internet has.
type block struct {
	prefix netip.Prefix
	what   string
}

// The special-purpose registries of IANA (RFC 6890 and its successors), coarser where that does no
// harm, and the metadata services of clouds that live elsewhere. Of IPv6, only what is globally routed
// (2000::/3) is allowed at all.
var (
	blocks4 = []block{
		{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
		{netip.MustParsePrefix("10.0.0.0/8"), "private"},
		{netip.MustParsePrefix("100.64.0.0/10"), "behind carrier-grade NAT"}, // Alibaba's metadata as well
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("168.63.129.16/32"), "a metadata service"}, // Azure's, public by its number only
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},           // most clouds' metadata
		{netip.MustParsePrefix("172.16.0.0/12"), "private"},
		{netip.MustParsePrefix("192.0.0.0/24"), "reserved"}, // Oracle's metadata as well
		{netip.MustParsePrefix("192.0.2.0/24"), "reserved"},
		{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
		{netip.MustParsePrefix("192.168.0.0/16"), "private"},
		{netip.MustParsePrefix("198.18.0.0/15"), "reserved"},
		{netip.MustParsePrefix("198.51.100.0/24"), "reserved"},
		{netip.MustParsePrefix("203.0.113.0/24"), "reserved"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"}, // broadcast as well
	}
	blocks6 = []block{
		{netip.MustParsePrefix("::/128"), "unspecified"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("fc00::/7"), "private"}, // Amazon's metadata over IPv6 as well
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
		{netip.MustParsePrefix("2001::/23"), "reserved"}, // Teredo as well: it embeds IPv4
		{netip.MustParsePrefix("2001:db8::/32"), "reserved"},
		{netip.MustParsePrefix("2002::/16"), "reserved"}, // 6to4: embeds IPv4
		{netip.MustParsePrefix("3fff::/20"), "reserved"},
	}
	routed6 = netip.MustParsePrefix("2000::/3")
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the last 32 bits are an IPv4 address
)

// refusePrivate returns a refusedError where the address is none of the internet.
func refusePrivate(address netip.Addr) error {
	plain := address.WithZone("").Unmap() // ::ffff:10.0.0.1 is 10.0.0.1
	if nat64.Contains(plain) {
		// Networks without IPv4 reach it through this prefix. What counts is where it leads.
		bytes := plain.As16()
		plain = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	blocks := blocks4
	if plain.Is6() {
		blocks = blocks6
	}
	for _, b := range blocks {
		if b.prefix.Contains(plain) {
			return refusedError{address: address.String(), what: b.what}
		}
	}
	if plain.Is6() && !routed6.Contains(plain) {
		return refusedError{address: address.String(), what: "not routed"}
	}
	return nil
}
