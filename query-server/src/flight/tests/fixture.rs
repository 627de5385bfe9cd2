//! A server over small tables.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use datafusion::arrow::array::{
    ArrayRef, BinaryViewArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampNanosecondArray, UInt16Array, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::super::client::Client;
use super::super::serve::serve_with;
use super::super::{ExportRequest, GRACE, Sessions, session_config};
use crate::questions::Questions;

/// What the tables hold, and what was seen of their use.
#[derive(Default)]
pub(super) struct Tables {
    /// Streams of the table `endless` that were given up or ended.
    pub(super) stopped: Arc<AtomicUsize>,
    /// Batches that were read from `endless`.
    pub(super) read: Arc<AtomicUsize>,
    /// What runs statements.
    pub(super) questions: Questions,
    /// The last export that was asked for.
    pub(super) exported: std::sync::Mutex<Option<ExportRequest>>,
}

#[async_trait]
impl Sessions for Tables {
    async fn session(&self, _: &Arc<Principal>) -> Result<SessionContext, Failure> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(8 << 20, 1.0)
            .with_disk_manager_builder(
                datafusion::execution::disk_manager::DiskManagerBuilder::default()
                    .with_mode(datafusion::execution::disk_manager::DiskManagerMode::Disabled),
            )
            .build_arc()
            .expect("a runtime");
        let context = SessionContext::new_with_config_rt(session_config(), runtime);
        let flows = Schema::new(vec![
            Field::new("flow_id", DataType::FixedSizeBinary(16), false),
            Field::new("bytes", DataType::UInt64, false),
        ]);
        let empty = MemTable::try_new(Arc::new(flows), vec![vec![]]).expect("a table");
        let broken = Broken(packets().schema());
        let endless = Endless {
            schema: numbers(0).schema(),
            stopped: Arc::clone(&self.stopped),
            read: Arc::clone(&self.read),
        };
        let tables: [(&str, Arc<dyn TableProvider>); 5] = [
            ("packets", Arc::new(table(packets()))),
            ("flows", Arc::new(empty)),
            ("skewed", Arc::new(table(skewed()))),
            ("broken", Arc::new(streaming(Arc::new(broken)))),
            ("endless", Arc::new(streaming(Arc::new(endless)))),
        ];
        for (name, table) in tables {
            context.register_table(name, table).expect("a new name");
        }
        Ok(context)
    }

    fn questions(&self) -> &Questions {
        &self.questions
    }

    async fn export(
        &self,
        _: &Arc<Principal>,
        request: ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let ports: Vec<_> = request.selection.ports.iter().map(|ports| ports.one()).collect();
        *self.exported.lock().expect("no test panics with it") = Some(request);
        let head = stream::iter([Ok(Bytes::from_static(b"\n\r\r\n")), Ok(big())]);
        match ports[..] {
            [Some(404)] => Err(Failure::new(FailureKind::NotFound, "no such store")),
            [Some(500)] => {
                let lost = Failure::new(FailureKind::Damaged, "block 7 has a wrong checksum");
                Ok(head.chain(stream::iter([Err(lost)])).boxed())
            }
            _ => Ok(head.boxed()),
        }
    }
}

/// A piece of a file that is longer than a row may be.
pub(super) fn big() -> Bytes {
    (0..3_000_000_u32).map(|i| i as u8).collect()
}

/// Three packets, in types that do not travel as they are.
pub(super) fn packets() -> RecordBatch {
    let observer: DictionaryArray<Int32Type> = ["node-a", "node-b", "node-a"].into_iter().collect();
    let time = TimestampNanosecondArray::from(vec![
        1_700_000_000_123_456_789,
        1_700_000_001_000_000_000,
        -1,
    ]);
    RecordBatch::try_from_iter([
        ("time", Arc::new(time.with_timezone("UTC")) as ArrayRef),
        ("observer", Arc::new(observer)),
        ("src_ip", Arc::new(StringViewArray::from(vec!["10.0.0.1", "10.0.0.2", "2001:db8::7"]))),
        ("src_port", Arc::new(UInt16Array::from(vec![Some(443), Some(53), None]))),
        ("length", Arc::new(UInt32Array::from(vec![60, 1500, 9000]))),
        (
            "payload",
            Arc::new(BinaryViewArray::from(vec![Some(&b"\x00\xff\x80"[..]), Some(b""), None])),
        ),
    ])
    .expect("columns of three rows")
}

/// Mostly small rows and, in one place, ten of 300 KiB.
fn skewed() -> RecordBatch {
    let text = |row: usize| match row {
        4000..4010 => "x".repeat(300 << 10),
        _ => "y".to_owned(),
    };
    let texts: StringArray = (0..8192).map(|row| Some(text(row))).collect();
    let rows: Int64Array = (0..8192).collect();
    RecordBatch::try_from_iter([("row", Arc::new(rows) as ArrayRef), ("text", Arc::new(texts))])
        .expect("columns of one length")
}

fn numbers(from: i64) -> RecordBatch {
    let numbers: Int64Array = (from..from + 1024).collect();
    RecordBatch::try_from_iter([("number", Arc::new(numbers) as ArrayRef)]).expect("one column")
}

fn table(batch: RecordBatch) -> MemTable {
    MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table")
}

fn streaming(partition: Arc<dyn PartitionStream>) -> StreamingTable {
    let schema = Arc::clone(partition.schema());
    StreamingTable::try_new(schema, vec![partition]).expect("a table")
}

/// A table whose store is away.
#[derive(Debug)]
struct Broken(SchemaRef);

impl PartitionStream for Broken {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let away = Failure::new(FailureKind::Unavailable, "the bucket does not answer");
        let rows = stream::iter([Ok(packets()), Err(DataFusionError::External(Box::new(away)))]);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0), rows))
    }
}

/// A table without end that counts how often reading it stopped.
#[derive(Debug)]
struct Endless {
    schema: SchemaRef,
    stopped: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let count = Count(Arc::clone(&self.stopped));
        let read = Arc::clone(&self.read);
        let rows = stream::unfold((0, count, read), |(from, count, read)| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            read.fetch_add(1, Ordering::SeqCst);
            Some((Ok(numbers(from)), (from + 1024, count, read)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// A running server; it stops when this is dropped or told to.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) tables: Arc<Tables>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), Failure>>,
}

impl Server {
    pub(super) async fn start() -> Server {
        Server::start_with(GRACE).await
    }

    /// One that gives running answers `grace` when it is told to stop.
    pub(super) async fn start_with(grace: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tables = Arc::new(Tables::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let sessions: Arc<dyn Sessions> = Arc::clone(&tables) as _;
        let served =
            tokio::spawn(serve_with(grace, listener, sessions, Principal::everything(), async {
                let _ = stopped.await;
            }));
        Server { address, tables, stop: Some(stop), served }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(&self.url()).await.expect("the server runs")
    }

    /// The client of the Arrow project, for what ours does not ask.
    pub(super) async fn sql(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(self.channel().await)
    }

    /// The calls themselves.
    pub(super) async fn raw(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel().await)
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.url()).expect("an address");
        endpoint.connect().await.expect("the server runs")
    }

    /// Tells the server to stop.
    pub(super) fn stop(&mut self) {
        self.stop.take();
    }

    /// Waits until it has.
    pub(super) async fn stopped(mut self) -> Result<(), Failure> {
        self.stop();
        self.served.await.expect("the server does not panic")
    }
}
