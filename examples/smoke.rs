use std::path::Path;
use longwire::config::model::Config;
use longwire::node::{Extras, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter("debug").with_writer(std::io::stderr).init();
    let text = r#"
[admin]
bind = "127.0.0.1:0"
[listeners.tcp]
bind = "127.0.0.1:0"
app = "echo"
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/ws" = "echo" }
[apps.echo]
upstream = "php"
script = "/tmp/fpm/echo.php"
[upstreams.php]
backends = ["unix:/tmp/fpm/sock"]
"#;
    let (config, w) = Config::parse(text, Path::new("/tmp/x.toml")).map_err(|e| e.to_string()).unwrap();
    println!("{w:?}");
    let node = Running::start(&config, &Extras::default()).await.unwrap();
    let longwire::config::model::Bind::Tcp(addr) = node.address("tcp").unwrap() else { panic!() };
    let mut s = tokio::net::TcpStream::connect(addr).await.unwrap();
    for i in 0..3u8 {
        s.write_all(&[0, 0, 0, 3, i, i, i]).await.unwrap();
        let mut b = [0; 7];
        s.read_exact(&mut b).await.unwrap();
        println!("{b:?}");
    }
    let longwire::config::model::Bind::Tcp(addr) = node.address("web").unwrap() else { panic!() };
    use futures_util::{SinkExt, StreamExt};
    let uri = format!("ws://{addr}/ws").parse().unwrap();
    let (mut ws, _) = tokio_websockets::ClientBuilder::from_uri(uri).connect().await.unwrap();
    ws.send(tokio_websockets::Message::text("hällo")).await.unwrap();
    println!("{:?}", ws.next().await);
    if std::env::args().nth(1).is_some() {
        println!("http://{addr}/  tcp {:?} admin {:?}", node.address("tcp"), node.admin_address());
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    }
    drop(s);
    println!("{:?}", node.drain(std::future::pending()).await);
}
