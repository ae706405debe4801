use finaiflow_schema::conformance;
use finaiflow_schema::testing::TenantDb;

#[tokio::test]
async fn a_provisioned_tenant_conforms() {
    let db = TenantDb::create().await;
    let findings = conformance::check(&mut db.admin().await, &db.names).await.unwrap();
    assert_eq!(findings, Vec::<String>::new());
    db.drop().await;
}
