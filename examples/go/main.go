// One turn of an agent: retrieve what matters, answer, store what was learned.
//
//	go run memoryd.example localhost:50051 [SESSION]
//
// `make example-go` generates the package memorydv1 and puts it next to this file.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"memoryd.example/memorydv1"
)

// newRequestID returns a UUID. A store with the same id again, after a lost answer, stores nothing
// twice.
func newRequestID() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), nil
}

func turn(target, session string) error {
	// From gRPC 1.63 on: grpc.NewClient, with insecure.NewCredentials of grpc/credentials/insecure.
	connection, err := grpc.Dial(target, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	memory := memorydv1.NewMemoryServiceClient(connection)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	requestID, err := newRequestID()
	if err != nil {
		return err
	}
	importance := 0.8
	stored, err := memory.StoreMemory(ctx, &memorydv1.StoreMemoryRequest{
		SessionId:   session,
		Content:     "I prefer e-mail over the phone.",
		ContentType: memorydv1.ContentType_CONTENT_TYPE_PREFERENCE,
		Importance:  &importance,
		Expiration:  &memorydv1.StoreMemoryRequest_NeverExpires{NeverExpires: true},
		RequestId:   requestID,
	})
	if err != nil {
		return err
	}
	fmt.Println("stored:", stored.Outcome)

	answer, err := memory.RetrieveMemories(ctx, &memorydv1.RetrieveMemoriesRequest{
		SessionId: session,
		Query:     "Shall we reach you by e-mail or by phone?",
		Limit:     5,
	})
	if err != nil {
		return err
	}
	for _, result := range answer.Results {
		fmt.Println("remembered:", result.Memory.Content)
	}
	return nil
}

func main() {
	session := "ada"
	if len(os.Args) > 2 {
		session = os.Args[2]
	}
	if err := turn(os.Args[1], session); err != nil {
		// The message names the field and the remedy.
		fmt.Fprintf(os.Stderr, "%s: %s\n", status.Code(err), status.Convert(err).Message())
		os.Exit(1)
	}
}
