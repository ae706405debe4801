-- Every visit to a Tenant asks for the claims of its name, whatever their state.
CREATE INDEX claims_name ON claims (installation_id, name);
