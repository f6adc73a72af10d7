BEGIN TRANSACTION;
CREATE TABLE account (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	broker TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "account" VALUES('acme',1,'{"id":"acme","broker":"local","broker_url":"mqtts://broker.example:8883","created_at":"2026-03-01T12:00:00.123456+00:00","coupling":"STRICT","certificates":"off","enabled":true,"version":1}','local');
CREATE TABLE account_user (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	device TEXT, 
	account TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "account_user" VALUES('acme/user-1',1,'{"id":"acme/user-1","account":"acme","username":"user-1","client_id":"gw1","broker":"local","device_id":"dev-000001","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-000001','acme');
INSERT INTO "account_user" VALUES('acme/user-1000',1,'{"id":"acme/user-1000","account":"acme","username":"user-1000","client_id":"gw1000","broker":"local","device_id":"dev-001000","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001000','acme');
INSERT INTO "account_user" VALUES('acme/user-1001',1,'{"id":"acme/user-1001","account":"acme","username":"user-1001","client_id":"gw1001","broker":"local","device_id":"dev-001001","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001001','acme');
INSERT INTO "account_user" VALUES('acme/user-1002',1,'{"id":"acme/user-1002","account":"acme","username":"user-1002","client_id":"gw1002","broker":"local","device_id":"dev-001002","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001002','acme');
INSERT INTO "account_user" VALUES('acme/user-1003',1,'{"id":"acme/user-1003","account":"acme","username":"user-1003","client_id":"gw1003","broker":"local","device_id":"dev-001003","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001003','acme');
INSERT INTO "account_user" VALUES('acme/user-1004',1,'{"id":"acme/user-1004","account":"acme","username":"user-1004","client_id":"gw1004","broker":"local","device_id":"dev-001004","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001004','acme');
INSERT INTO "account_user" VALUES('acme/user-1005',1,'{"id":"acme/user-1005","account":"acme","username":"user-1005","client_id":"gw1005","broker":"local","device_id":"dev-001005","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}','dev-001005','acme');
CREATE TABLE audit (
	seq INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "audit" VALUES(1,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"request.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"each","address":null,"details":{},"seq":1}');
INSERT INTO "audit" VALUES(2,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001000","address":null,"details":{},"seq":2}');
INSERT INTO "audit" VALUES(3,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001000","address":null,"details":{},"seq":3}');
INSERT INTO "audit" VALUES(4,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001001","address":null,"details":{},"seq":4}');
INSERT INTO "audit" VALUES(5,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001001","address":null,"details":{},"seq":5}');
INSERT INTO "audit" VALUES(6,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001002","address":null,"details":{},"seq":6}');
INSERT INTO "audit" VALUES(7,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001002","address":null,"details":{},"seq":7}');
INSERT INTO "audit" VALUES(8,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001003","address":null,"details":{},"seq":8}');
INSERT INTO "audit" VALUES(9,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001003","address":null,"details":{},"seq":9}');
INSERT INTO "audit" VALUES(10,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001004","address":null,"details":{},"seq":10}');
INSERT INTO "audit" VALUES(11,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001004","address":null,"details":{},"seq":11}');
INSERT INTO "audit" VALUES(12,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001005","address":null,"details":{},"seq":12}');
INSERT INTO "audit" VALUES(13,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001005","address":null,"details":{},"seq":13}');
INSERT INTO "audit" VALUES(14,'{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"request.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"again","address":null,"details":{},"seq":14}');
CREATE TABLE device (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	request TEXT, 
	client_id TEXT, 
	any_client_id TEXT, 
	account TEXT, 
	state TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "device" VALUES('dev-000001',1,'{"id":"dev-000001","account":"acme","client_id":"gw1","request":"req-000001","connection":{"user":"user-1","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-000001','acme/gw1','gw1','acme','provisioned');
INSERT INTO "device" VALUES('dev-001000',1,'{"id":"dev-001000","account":"acme","client_id":"gw1000","request":"req-001000","connection":{"user":"user-1000","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1000"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001000','acme/gw1000','gw1000','acme','provisioned');
INSERT INTO "device" VALUES('dev-001001',1,'{"id":"dev-001001","account":"acme","client_id":"gw1001","request":"req-001001","connection":{"user":"user-1001","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1001"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001001','acme/gw1001','gw1001','acme','provisioned');
INSERT INTO "device" VALUES('dev-001002',1,'{"id":"dev-001002","account":"acme","client_id":"gw1002","request":"req-001002","connection":{"user":"user-1002","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1002"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001002','acme/gw1002','gw1002','acme','provisioned');
INSERT INTO "device" VALUES('dev-001003',1,'{"id":"dev-001003","account":"acme","client_id":"gw1003","request":"req-001003","connection":{"user":"user-1003","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1003"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001003','acme/gw1003','gw1003','acme','provisioned');
INSERT INTO "device" VALUES('dev-001004',1,'{"id":"dev-001004","account":"acme","client_id":"gw1004","request":"req-001004","connection":{"user":"user-1004","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1004"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001004','acme/gw1004','gw1004','acme','provisioned');
INSERT INTO "device" VALUES('dev-001005',1,'{"id":"dev-001005","account":"acme","client_id":"gw1005","request":"req-001005","connection":{"user":"user-1005","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1005"},"certificate_serial":null,"certificate_ends_at":null,"version":1}','req-001005','acme/gw1005','gw1005','acme','provisioned');
CREATE TABLE effect (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	broker TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "effect" VALUES('acme/user-1',1,'{"id":"acme/user-1","verb":"apply","broker":"local","account":"acme","username":"user-1","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1000',1,'{"id":"acme/user-1000","verb":"apply","broker":"local","account":"acme","username":"user-1000","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1001',1,'{"id":"acme/user-1001","verb":"apply","broker":"local","account":"acme","username":"user-1001","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1002',1,'{"id":"acme/user-1002","verb":"apply","broker":"local","account":"acme","username":"user-1002","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1003',1,'{"id":"acme/user-1003","verb":"apply","broker":"local","account":"acme","username":"user-1003","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1004',1,'{"id":"acme/user-1004","verb":"apply","broker":"local","account":"acme","username":"user-1004","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
INSERT INTO "effect" VALUES('acme/user-1005',1,'{"id":"acme/user-1005","verb":"apply","broker":"local","account":"acme","username":"user-1005","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}','local');
CREATE TABLE epoch (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "epoch" VALUES('store',1,'{"id":"store","number":2,"began_at":"2026-03-01T12:00:00.123456+00:00","filling":null,"moved_to":null,"version":1}');
CREATE TABLE meta (
	one INTEGER NOT NULL CHECK (one = 1), 
	audit_seq INTEGER NOT NULL, 
	PRIMARY KEY (one)
);
INSERT INTO "meta" VALUES(1,14);
CREATE TABLE provision_user (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	account TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "provision_user" VALUES('lobby',1,'{"id":"lobby","account":"acme","verifier":"hmac-sha256$k1$CCCC","created_at":"2026-03-01T12:00:00.123456+00:00","link_verifier":null,"version":1}','acme');
CREATE TABLE request (
	id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	login TEXT, 
	client_id TEXT, 
	grant_user TEXT, 
	any_login TEXT, 
	any_client_id TEXT, 
	folded_client_id TEXT, 
	open_keyless_username TEXT, 
	open_username TEXT, 
	username TEXT, 
	account TEXT, 
	state TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "request" VALUES('req-000001',1,'{"id":"req-000001","account":"acme","client_id":"gw1","client_id_claim":"gw1","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":"2026-03-02T12:00:00.123456+00:00","key_verifier":"hmac-sha256$k1$AAAA","endpoint":"mqtts://broker.example:8883","reserve_user":true,"coupling":"INHERITED","configuration":{"net":{"ntp":["a",1,2.5,null,true]},"größe":"☃"},"packages":[{"name":"heater","version":"1.0","url":"https://example/heater.dp","sha256":"0000000000000000000000000000000000000000000000000000000000000000"}],"max_attempts":3,"approval":"not_required","state":"granted","attempts":2,"key_failures":1,"key_blocked_until":"2026-03-01T12:00:00+00:00","arm":1,"epoch":1,"grant":{"message_id":"m1","granted_at":"2026-03-01T12:00:00.123456+00:00","device_id":"dev-1","username":"dev-1","sealed":"gcm1$k1$AAAA","csr_digest":null,"certificate_serial":null,"certificate_ends_at":null,"told_to":null},"confirmed_at":null,"version":1}','lobby/gw1','gw1','acme/dev-1','lobby/gw1','gw1','gw1',NULL,'lobby','lobby','acme','granted');
INSERT INTO "request" VALUES('req-000002',1,'{"id":"req-000002","account":"acme","client_id":"gw2","client_id_claim":"gw2","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw2','gw2',NULL,'lobby/gw2','gw2','gw2','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001000',2,'{"id":"req-001000","account":"acme","client_id":"gw1000","client_id_claim":"gw1000","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":3,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":2}','lobby/gw1000','gw1000',NULL,'lobby/gw1000','gw1000','gw1000','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001001',1,'{"id":"req-001001","account":"acme","client_id":"gw1001","client_id_claim":"gw1001","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw1001','gw1001',NULL,'lobby/gw1001','gw1001','gw1001','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001002',1,'{"id":"req-001002","account":"acme","client_id":"gw1002","client_id_claim":"gw1002","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw1002','gw1002',NULL,'lobby/gw1002','gw1002','gw1002','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001003',1,'{"id":"req-001003","account":"acme","client_id":"gw1003","client_id_claim":"gw1003","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw1003','gw1003',NULL,'lobby/gw1003','gw1003','gw1003','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001004',1,'{"id":"req-001004","account":"acme","client_id":"gw1004","client_id_claim":"gw1004","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw1004','gw1004',NULL,'lobby/gw1004','gw1004','gw1004','lobby','lobby','lobby','acme','pending');
INSERT INTO "request" VALUES('req-001005',1,'{"id":"req-001005","account":"acme","client_id":"gw1005","client_id_claim":"gw1005","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}','lobby/gw1005','gw1005',NULL,'lobby/gw1005','gw1005','gw1005','lobby','lobby','lobby','acme','pending');
CREATE TABLE schema_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "schema_version" VALUES('1');
CREATE INDEX account_by_broker ON account (broker, id) WHERE broker IS NOT NULL;
CREATE INDEX provision_user_by_account ON provision_user (account, id) WHERE account IS NOT NULL;
CREATE UNIQUE INDEX request_by_login ON request (login) WHERE login IS NOT NULL;
CREATE UNIQUE INDEX request_by_client_id ON request (client_id) WHERE client_id IS NOT NULL;
CREATE INDEX request_by_grant_user ON request (grant_user, id) WHERE grant_user IS NOT NULL;
CREATE INDEX request_by_any_login ON request (any_login, id) WHERE any_login IS NOT NULL;
CREATE INDEX request_by_any_client_id ON request (any_client_id, id) WHERE any_client_id IS NOT NULL;
CREATE INDEX request_by_folded_client_id ON request (folded_client_id, id) WHERE folded_client_id IS NOT NULL;
CREATE INDEX request_by_open_keyless_username ON request (open_keyless_username, id) WHERE open_keyless_username IS NOT NULL;
CREATE INDEX request_by_open_username ON request (open_username, id) WHERE open_username IS NOT NULL;
CREATE INDEX request_by_username ON request (username, id) WHERE username IS NOT NULL;
CREATE INDEX request_by_account ON request (account, id) WHERE account IS NOT NULL;
CREATE INDEX request_by_state ON request (state, id) WHERE state IS NOT NULL;
CREATE INDEX request_by_account_state ON request (account, state, id) WHERE account IS NOT NULL AND state IS NOT NULL;
CREATE UNIQUE INDEX device_by_request ON device (request) WHERE request IS NOT NULL;
CREATE UNIQUE INDEX device_by_client_id ON device (client_id) WHERE client_id IS NOT NULL;
CREATE INDEX device_by_any_client_id ON device (any_client_id, id) WHERE any_client_id IS NOT NULL;
CREATE INDEX device_by_account ON device (account, id) WHERE account IS NOT NULL;
CREATE INDEX device_by_state ON device (state, id) WHERE state IS NOT NULL;
CREATE INDEX device_by_account_state ON device (account, state, id) WHERE account IS NOT NULL AND state IS NOT NULL;
CREATE INDEX account_user_by_device ON account_user (device, id) WHERE device IS NOT NULL;
CREATE INDEX account_user_by_account ON account_user (account, id) WHERE account IS NOT NULL;
CREATE INDEX effect_by_broker ON effect (broker, id) WHERE broker IS NOT NULL;
COMMIT;
