import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.memoryd.v1.ListMemoriesRequest;
import com.memoryd.v1.MemoryServiceGrpc;
import com.memoryd.v1.MemoryServiceGrpc.MemoryServiceBlockingStub;
import com.memoryd.v1.RetrieveMemoriesRequest;
import com.memoryd.v1.StoreMemoryRequest;
import com.memoryd.v1.WatchMemoriesRequest;
import com.memoryd.v1.WatchMemoriesResponse;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** grpc-java with generated stubs: {@code program ADDRESS COUNTED_ADDRESS}. */
public final class Program {
  private static final String SESSION = "grpc-java";

  /** 12 KB that gzip makes much smaller. */
  private static final String LONG = "word ".repeat(2400).trim();

  private final MemoryServiceBlockingStub memory;
  private final MemoryServiceBlockingStub counted;

  private Program(String address, String counted) {
    this.memory = connect(address);
    this.counted = connect(counted).withCompression("gzip");
  }

  private static MemoryServiceBlockingStub connect(String address) {
    return MemoryServiceGrpc.newBlockingStub(
        NettyChannelBuilder.forTarget(address).usePlaintext().build());
  }

  private void store(String content) {
    memory.storeMemory(
        StoreMemoryRequest.newBuilder().setSessionId(SESSION).setContent(content).build());
  }

  private Iterator<WatchMemoriesResponse> watch(MemoryServiceBlockingStub stub) {
    return stub.watchMemories(WatchMemoriesRequest.newBuilder().setSessionId(SESSION).build());
  }

  private String unary() {
    store("prefers e-mail");
    var request =
        RetrieveMemoriesRequest.newBuilder().setSessionId(SESSION).setQuery("e-mail").build();
    equal(memory.retrieveMemories(request).getResults(0).getMemory().getContent(), "prefers e-mail");
    return "yes";
  }

  private String stream() throws Exception {
    var context = Context.current().withCancellation();
    try {
      return context.call(
          () -> {
            var changes = watch(memory);
            equal(changes.next().getMemory().getContent(), "prefers e-mail");
            store("likes tea");
            equal(changes.next().getMemory().getContent(), "likes tea");
            return "yes";
          });
    } finally {
      context.cancel(null);
    }
  }

  private String errors() throws InvalidProtocolBufferException {
    try {
      store("");
    } catch (StatusRuntimeException refusal) {
      equal(refusal.getStatus().getCode(), Status.Code.INVALID_ARGUMENT);
      var found = 0;
      for (var detail : StatusProto.fromThrowable(refusal).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          equal(detail.unpack(ErrorInfo.class).getReason(), "ERROR_REASON_INVALID_REQUEST");
          found++;
        } else if (detail.is(BadRequest.class)) {
          equal(detail.unpack(BadRequest.class).getFieldViolations(0).getField(), "content");
          found++;
        }
      }
      equal(found, 2);
      return "yes";
    }
    throw new AssertionError("it is stored");
  }

  private String gzip() {
    var request = StoreMemoryRequest.newBuilder().setSessionId(SESSION).setContent(LONG).build();
    equal(counted.storeMemory(request).getMemory().getContent(), LONG);
    return "requests";
  }

  private String deadline() {
    try {
      watch(memory.withDeadlineAfter(300, TimeUnit.MILLISECONDS)).forEachRemaining(change -> {});
    } catch (StatusRuntimeException late) {
      equal(late.getStatus().getCode(), Status.Code.DEADLINE_EXCEEDED);
      return "yes";
    }
    throw new AssertionError("it has ended by itself");
  }

  private String metadata() {
    var key = Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);
    var sent = new Metadata();
    sent.put(key, "mine");
    var headers = new AtomicReference<Metadata>();
    var trailers = new AtomicReference<Metadata>();
    memory
        .withInterceptors(
            MetadataUtils.newAttachHeadersInterceptor(sent),
            MetadataUtils.newCaptureMetadataInterceptor(headers, trailers))
        .listMemories(ListMemoriesRequest.newBuilder().setSessionId(SESSION).build());
    equal(trailers.get().get(key), "mine");
    return "yes";
  }

  private static void equal(Object found, Object wanted) {
    if (!found.equals(wanted)) {
      throw new AssertionError(found + " is not " + wanted);
    }
  }

  private static void report(String feature, Callable<String> check) {
    String shown;
    try {
      shown = check.call();
    } catch (Throwable failure) {
      shown = "failed: " + failure;
    }
    System.out.println(feature + ": " + shown);
  }

  public static void main(String[] arguments) {
    var program = new Program(arguments[0], arguments[1]);
    report("unary", program::unary);
    report("stream", program::stream);
    report("errors", program::errors);
    report("gzip", program::gzip);
    report("deadline", program::deadline);
    report("metadata", program::metadata);
    System.exit(0);
  }
}
