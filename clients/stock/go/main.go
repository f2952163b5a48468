// grpc-go with generated stubs.
//
//	program ADDRESS COUNTED_ADDRESS
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"memoryd.example/memorydv1"
)

const session = "grpc-go"

// 12 KB that gzip makes much smaller.
var long = strings.TrimSpace(strings.Repeat("word ", 2400))

type checks struct {
	memory, counted memorydv1.MemoryServiceClient
	ctx             context.Context
}

func (c checks) store(content string) error {
	_, err := c.memory.StoreMemory(c.ctx, &memorydv1.StoreMemoryRequest{SessionId: session, Content: content})
	return err
}

func (c checks) watch(ctx context.Context) (memorydv1.MemoryService_WatchMemoriesClient, error) {
	return c.memory.WatchMemories(ctx, &memorydv1.WatchMemoriesRequest{SessionId: session})
}

func (c checks) unary() (string, error) {
	if err := c.store("prefers e-mail"); err != nil {
		return "", err
	}
	answer, err := c.memory.RetrieveMemories(c.ctx, &memorydv1.RetrieveMemoriesRequest{SessionId: session, Query: "e-mail"})
	if err != nil {
		return "", err
	}
	return "yes", equal(answer.Results[0].Memory.Content, "prefers e-mail")
}

func (c checks) stream() (string, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	changes, err := c.watch(ctx)
	if err != nil {
		return "", err
	}
	if err := next(changes, "prefers e-mail"); err != nil {
		return "", err
	}
	if err := c.store("likes tea"); err != nil {
		return "", err
	}
	return "yes", next(changes, "likes tea")
}

func next(changes memorydv1.MemoryService_WatchMemoriesClient, wanted string) error {
	change, err := changes.Recv()
	if err != nil {
		return err
	}
	return equal(change.Memory.Content, wanted)
}

func (c checks) errors() (string, error) {
	refusal := status.Convert(c.store(""))
	var field, reason string
	for _, detail := range refusal.Details() {
		switch found := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = found.Reason
		case *errdetails.BadRequest:
			field = found.FieldViolations[0].Field
		}
	}
	if err := equal(refusal.Code(), codes.InvalidArgument); err != nil {
		return "", err
	}
	if err := equal(reason, "ERROR_REASON_INVALID_REQUEST"); err != nil {
		return "", err
	}
	return "yes", equal(field, "content")
}

func (c checks) gzip() (string, error) {
	request := &memorydv1.StoreMemoryRequest{SessionId: session, Content: long}
	stored, err := c.counted.StoreMemory(c.ctx, request, grpc.UseCompressor(gzip.Name))
	if err != nil {
		return "", err
	}
	return "requests", equal(stored.Memory.Content, long)
}

func (c checks) deadline() (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, 300*time.Millisecond)
	defer cancel()
	changes, err := c.watch(ctx)
	for err == nil {
		_, err = changes.Recv()
	}
	return "yes", equal(status.Code(err), codes.DeadlineExceeded)
}

func (c checks) metadata() (string, error) {
	ctx := metadata.AppendToOutgoingContext(c.ctx, "x-request-id", "mine")
	var trailer metadata.MD
	request := &memorydv1.ListMemoriesRequest{SessionId: session}
	if _, err := c.memory.ListMemories(ctx, request, grpc.Trailer(&trailer)); err != nil {
		return "", err
	}
	if len(trailer["x-request-id"]) != 1 {
		return "", errors.New("there is no request id")
	}
	return "yes", equal(trailer["x-request-id"][0], "mine")
}

func equal(found, wanted interface{}) error {
	if found != wanted {
		return fmt.Errorf("%v is not %v", found, wanted)
	}
	return nil
}

func connect(address string) memorydv1.MemoryServiceClient {
	// From gRPC 1.63 on: grpc.NewClient, with insecure.NewCredentials of grpc/credentials/insecure.
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		panic(err)
	}
	return memorydv1.NewMemoryServiceClient(connection)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := checks{connect(os.Args[1]), connect(os.Args[2]), ctx}
	for _, feature := range []struct {
		name  string
		check func() (string, error)
	}{
		{"unary", c.unary},
		{"stream", c.stream},
		{"errors", c.errors},
		{"gzip", c.gzip},
		{"deadline", c.deadline},
		{"metadata", c.metadata},
	} {
		shown, err := feature.check()
		if err != nil {
			shown = fmt.Sprintf("failed: %v", err)
		}
		fmt.Printf("%s: %s\n", feature.name, shown)
	}
}
